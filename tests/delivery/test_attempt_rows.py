"""What is kept of every attempt: what came back, and where the time went."""

from __future__ import annotations

import gzip
import json
import socket

import pytest

from app.domain.delivery_ids import DeliveryPlace
from app.domain.documents import DEFAULT_TENANT
from app.storage import attempts
from app.storage.engine import transaction
from worker.answers import BODY_CAP, HEADERS_CAP, SUCCESS_HEADERS_CAP, kept_body, kept_headers
from worker.exchange import Answer


def kept(yard, document, destination):
    place = DeliveryPlace(document.id, document.seq, destination.id, 0)
    with transaction(yard.engine) as connection:
        return attempts.of_delivery(connection, DEFAULT_TENANT, place)


def test_every_attempt_of_a_delivery_is_kept(yard, delivery, receiver):
    destination = yard.destination(receiver.url)
    document = yard.one(destination)
    receiver.answers(503, "no\0 luck", X_Why="tired")
    delivery.deliver(destination)
    delivery.wait_until_idle()
    yard.make_due()
    receiver.answers(200, "thanks")
    delivery.deliver(destination)
    delivery.wait_until_idle()
    first, second = kept(yard, document, destination)
    assert (first.number, first.kind, first.status) == (1, "temporary", 503)
    assert first.error == "HTTP 503 Service Unavailable: no\ufffd luck"
    assert (first.headers["x-why"], first.body) == ("tired", "no\ufffd luck")
    assert (second.number, second.kind, second.status, second.error) == (2, "success", 200, None)
    assert second.body == "thanks"
    assert first.started_at < second.started_at


def test_the_phases_add_up_and_a_reused_connection_says_so(yard, make_delivery, receiver):
    delivery = make_delivery(concurrency=1)
    destination = yard.destination(receiver.url)
    documents = [yard.one(destination) for _ in range(2)]
    delivery.deliver(destination)
    delivery.wait_until_idle()
    (first,), (second,) = (kept(yard, one, destination) for one in documents)
    assert (first.reused, second.reused) == (False, True)
    assert first.tls_ms is None
    phases = (first.name_ms, first.connect_ms, first.wait_ms, first.rest_ms)
    assert None not in phases
    assert 0 < sum(phases) <= first.total_ms
    assert (second.name_ms, second.connect_ms) == (None, None)
    assert 0 < second.wait_ms + second.rest_ms <= second.total_ms


def test_an_attempt_without_an_answer_shows_how_far_it_came(yard, make_delivery, receiver):
    delivery = make_delivery()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refusing = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    nobody = yard.destination(refusing, key="nobody")
    hanging = yard.destination(receiver.url, key="hanging", timeout_seconds=1)
    receiver.hangs()
    found = {}
    for destination in (nobody, hanging):
        document = yard.one(destination)
        delivery.deliver(destination)
        delivery.wait_until_idle()
        (found[destination.key],) = kept(yard, document, destination)
    refused, late = found["nobody"], found["hanging"]
    assert (refused.status, refused.headers, refused.body) == (None, None, None)
    assert "no connection" in refused.error
    assert refused.connect_ms is not None
    assert refused.wait_ms is None
    assert late.wait_ms > 100
    assert late.rest_ms is None
    assert late.kind == "temporary"


def answer(status=200, headers=(), body=b""):
    return Answer(status, b"", list(headers), body)


def test_repeated_headers_are_joined_and_strange_ones_are_text():
    headers = [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=\xff"), (b"X", b"a\0b")]
    kept = json.loads(kept_headers(answer(headers=headers)).json)
    assert kept == {"set-cookie": "a=1, b=\xff", "x": "a\ufffdb"}


@pytest.mark.parametrize(("status", "cap"), [(200, SUCCESS_HEADERS_CAP), (500, HEADERS_CAP)])
def test_headers_are_kept_up_to_a_size(status, cap):
    headers = [(b"x-%03d" % number, b"v" * 95) for number in range(1000)]
    kept = json.loads(kept_headers(answer(status, headers)).json)
    assert len(kept) == cap // 100
    assert next(iter(kept)) == "x-000"


def test_a_body_is_kept_as_text_however_it_came():
    assert kept_body(answer(body=b"\xff\0ok"), "") == "\ufffd\ufffdok"
    assert kept_body(answer(body=gzip.compress(b"a" * 10**6)), "gzip") == "a" * BODY_CAP
    assert kept_body(answer(body=b"not gzip"), "gzip") == ""
    assert kept_body(answer(body=b"b" * 10_000), "") == "b" * BODY_CAP
    assert kept_body(answer(), "") == ""
    assert kept_headers(answer(headers=[(b"Content-Encoding", b" GZip")])).encoding == "gzip"


def test_results_that_are_written_twice_leave_one_attempt(yard, delivery, receiver):
    destination = yard.destination(receiver.url)
    document = yard.one(destination)
    outbox, recorded = delivery.pump._parts.outbox, []
    write = outbox.record

    async def write_twice(lease, results):
        # As when the first commit's answer was lost on its way.
        recorded.append(await write(lease, results))
        return await write(lease, results)

    outbox.record = write_twice
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert recorded == [{"delivered": 1}]
    assert len(kept(yard, document, destination)) == 1
    assert yard.row(document).attempts == 1
