import asyncio
import base64
import hmac
import json
import threading
import time
from datetime import timedelta

import pytest
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_binary, from_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from sqlalchemy import text
from standardwebhooks import Webhook

from app.domain.documents import DEFAULT_TENANT
from app.domain.signing import decode_secret
from app.domain.verifying import parse_key, verify
from app.storage import destinations, leases
from app.storage.engine import make_engine, transaction
from app.storage.migrate import migrate
from tests.delivery.conftest import Yard, wait_until
from worker import holder, pump
from worker.outbox import Outbox


def test_a_delivery_arrives_once_signed_and_is_recorded(yard, delivery, receiver):
    destination = yard.destination(receiver.url)
    document = yard.one(destination, "Grüße ☃")
    delivery.deliver(destination)
    delivery.wait_until_idle()
    row = yard.row(document)
    assert (row.state, row.attempts, row.last_status, row.last_error) == ("delivered", 1, 200, None)
    assert row.ended_at == row.attempted_at is not None
    (request,) = receiver.received
    body = Webhook(destination.secret).verify(request.body, request.headers)
    assert request.webhook_id == f"msg_{document.id.hex}_{document.seq}"
    assert body["type"] == "document.classified"
    assert body["data"] == {
        "id": str(document.id),
        "version": 0,
        "created_at": document.created_at.isoformat().replace("+00:00", "Z"),
        "updated_at": document.updated_at.isoformat().replace("+00:00", "Z"),
        "category": "sci.space",
        "confidence": 0.9,
        "model_version": "m1",
        "content": "Grüße ☃",
        "topics": ["a.b"],
        "attributes": {"n": 1},
    }


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{ "b":1.50,\t"a" : "\\u00e9 \\u0000 \\/" }', "application/json"),
        ("Grüße ☃", "text/plain; charset=utf-8"),
    ],
)
def test_a_raw_destination_gets_the_content_byte_for_byte_and_signed(
    yard, delivery, receiver, content, kind
):
    destination = yard.destination(receiver.url, body="raw")
    yard.one(destination, content)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    (request,) = receiver.received
    assert request.body == content.encode()
    assert request.headers["content-type"] == kind
    # The package parses what it verifies; the signature is what matters here.
    signed = f"{request.webhook_id}.{request.headers['webhook-timestamp']}.".encode() + request.body
    key = decode_secret(destination.secret)
    expected = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize(
    ("body", "read"), [("cloudevents", from_structured), ("cloudevents-binary", from_binary)]
)
def test_a_cloudevent_is_signed_and_names_its_webhook_and_its_sender(
    yard, make_delivery, receiver, body, read
):
    delivery = make_delivery(source="https://docs.example.com/")
    destination = yard.destination(receiver.url, body=body)
    document = yard.one(destination, "Grüße ☃")
    delivery.deliver(destination)
    delivery.wait_until_idle()
    (request,) = receiver.received
    verify(parse_key(destination.secret), request.headers, request.body, now=time.time())
    event = read(HTTPMessage(headers=request.headers, body=request.body), JSONFormat(), CloudEvent)
    assert (event.get_id(), event.get_source()) == (request.webhook_id, "https://docs.example.com/")
    assert (event.get_type(), event.get_subject()) == ("document.classified", str(document.id))
    assert event.get_time() == yard.row(document).created_at
    assert event.get_data()["content"] == "Grüße ☃"


def test_when_nothing_is_left_the_lease_is_released_without_suspicion(yard, delivery, receiver):
    destination = yard.destination(receiver.url)
    yard.one(destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    runtime = yard.runtime(destination)
    assert (runtime.holder, runtime.lost_leases) == (None, 0)
    assert delivery.bells.cleared >= 2  # before the first read, and before the last


def test_nothing_arrives_twice_while_flushes_race_reads(yard, make_delivery, receiver):
    delivery = make_delivery(concurrency=20)
    destination = yard.destination(receiver.url)
    total = 0
    done = threading.Event()

    def ring():
        # Each ring makes the holder read again, whatever is under way.
        while not done.wait(0.001):
            delivery.pump.ring(DEFAULT_TENANT, destination.id)

    ringer = threading.Thread(target=ring)
    ringer.start()
    try:
        for _ in range(10):
            yard.store(*[yard.document() for _ in range(200)], to=destination)
            total += 200
            delivery.deliver(destination)
        wait_until(lambda: yard.states() == {"delivered": total}, 60)
    finally:
        done.set()
        ringer.join()
    assert len(receiver.ids) == total
    assert len(set(receiver.ids)) == total


def test_a_failed_attempt_becomes_a_row_that_is_due_on_its_rung(yard, delivery, receiver):
    receiver.answers(500, "no luck\0 today")
    destination = yard.destination(receiver.url)
    document = yard.one(destination)
    waits = []
    for attempts in range(1, 11):
        yard.make_due()
        delivery.deliver(destination)
        row = wait_until(lambda n=attempts: (r := yard.row(document)).attempts == n and r)
        if row.state == "pending":
            waits.append(row.due_at - row.attempted_at)
        delivery.wait_until_idle()
    minutes = [timedelta(minutes=n) for n in (5, 30, 120, 300, 600, 840, 1200, 1440)]
    assert waits == [timedelta(seconds=5), *minutes]
    assert (row.state, row.last_status) == ("failed", 500)
    assert row.last_error == "HTTP 500 Internal Server Error: no luck\ufffd today"
    assert len(set(receiver.ids)) == 1


def test_a_redirect_is_not_followed_and_fails_behind_a_second_look(yard, delivery, make_receiver):
    elsewhere, redirecting = make_receiver(), make_receiver()
    redirecting.answers(302, Location=elsewhere.url)
    destination = yard.destination(redirecting.url)
    document = yard.one(destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    row = yard.row(document)
    assert (row.state, row.last_status) == ("pending", 302)
    assert row.due_at - row.attempted_at == timedelta(minutes=5)
    yard.make_due()
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert yard.row(document).state == "failed"
    assert elsewhere.received == []


def test_gone_disables_the_destination_and_the_others_wait(yard, make_delivery, receiver):
    delivery = make_delivery(concurrency=1)
    receiver.answers(410)
    destination = yard.destination(receiver.url)
    first, second = yard.one(destination), yard.one(destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert (yard.row(first).state, yard.row(second).state) == ("failed", "pending")
    with transaction(yard.engine) as connection:
        now = destinations.get(connection, DEFAULT_TENANT, destination.id)
    assert (now.enabled, now.disabled_reason) == (False, "HTTP 410 Gone")
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert len(receiver.received) == 1


def test_gone_from_a_url_that_was_replaced_meanwhile_disables_nothing(yard, delivery, receiver):
    release = receiver.hangs()
    destination = yard.destination(receiver.url)
    yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    yard.execute("UPDATE destinations SET url = 'http://elsewhere.example/'")
    release(410)
    delivery.wait_until_idle()
    with transaction(yard.engine) as connection:
        assert destinations.get(connection, DEFAULT_TENANT, destination.id).enabled


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_private_address_is_refused_unless_it_is_allowed(yard, make_delivery, receiver, host):
    delivery = make_delivery(allowed=())
    destination = yard.destination(f"http://{host}:{receiver.port}/")
    document = yard.one(destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    row = yard.row(document)
    assert (row.state, row.attempts, row.last_status) == ("pending", 1, None)
    assert "is a loopback address" in row.last_error
    assert "DESTINATION_ALLOW_CIDRS" in row.last_error
    assert receiver.received == []


def take_over(yard, destination):
    """Another process takes the lease, as if this one had been silent for too long."""
    with transaction(yard.engine) as connection:
        # Both at once: a renewal in between would keep the lease.
        connection.execute(
            text("UPDATE destination_runtime SET lease_expires_at = now() - interval '1 s'")
        )
        lease = leases.acquire(connection, DEFAULT_TENANT, destination.id, "another", 60)
    assert lease is not None
    return lease


@pytest.mark.parametrize(
    ("status", "state", "attempts"), [(500, "pending", 0), (200, "delivered", 1)]
)
def test_under_an_old_epoch_only_a_success_counts(
    yard, delivery, receiver, status, state, attempts
):
    release = receiver.hangs()
    destination = yard.destination(receiver.url)
    document = yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    take_over(yard, destination)
    release(status)
    delivery.wait_until_idle()
    row = yard.row(document)
    assert (row.state, row.attempts) == (state, attempts)


def test_a_holder_that_lost_its_lease_stops_at_once(yard, make_delivery, receiver):
    delivery = make_delivery(concurrency=1, lease_seconds=0.6)
    receiver.hangs()
    destination = yard.destination(receiver.url)
    for _ in range(3):
        yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    lease = take_over(yard, destination)
    wait_until(lambda: not delivery.pump.held, 10)  # before the request's own deadline
    assert len(receiver.received) == 1
    assert yard.states() == {"pending": 3}
    assert yard.runtime(destination).epoch == lease.epoch
    assert yard.runtime(destination).holder == "another"


def test_nothing_is_sent_while_the_lease_is_not_sure(yard, make_delivery, receiver, monkeypatch):
    async def no_answer(*_):
        raise OSError("no route to the database")

    delivery = make_delivery(concurrency=1, lease_seconds=0.5)
    release = receiver.hangs()
    destination = yard.destination(receiver.url)
    first, second = yard.one(destination), yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    renew = Outbox.renew
    monkeypatch.setattr(Outbox, "renew", no_answer)
    began_at = time.monotonic()
    wait_until(lambda: time.monotonic() - began_at > 0.6)
    release()
    wait_until(lambda: yard.row(first).state == "delivered")
    assert len(receiver.received) == 1
    monkeypatch.setattr(Outbox, "renew", renew)
    wait_until(lambda: yard.row(second).state == "delivered")


def test_content_of_a_newer_version_is_not_sent_as_the_older_one(yard, delivery, receiver):
    destination = yard.destination(receiver.url)
    first = yard.one(destination, "v1")
    second = yard.one(destination, "v2", id=first.id)
    # As a reader sees it whose snapshot lies between the upsert and the superseding.
    yard.execute("UPDATE deliveries SET state = 'pending' WHERE seq = :seq", seq=first.seq)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert (yard.row(first).state, yard.row(second).state) == ("superseded", "delivered")
    assert yard.row(first).attempts == 0
    assert [json.loads(one.body)["data"]["content"] for one in receiver.received] == ["v2"]


def test_a_failure_of_a_version_that_was_replaced_meanwhile_is_superseded(yard, delivery, receiver):
    release = receiver.hangs()
    destination = yard.destination(receiver.url)
    first = yard.one(destination, "v1")
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    yard.execute("UPDATE documents SET seq = seq + 1")
    release(500)
    delivery.wait_until_idle()
    assert yard.row(first).state == "superseded"


def test_behind_two_lost_leases_attempts_are_marked_and_made_one_at_a_time(
    yard, delivery, receiver
):
    destination = yard.destination(receiver.url)
    documents = [yard.one(destination) for _ in range(5)]
    yard.execute(
        "INSERT INTO destination_runtime (tenant_id, destination_id, epoch, holder,"
        " lease_expires_at, lost_leases) VALUES (1, :id, 7, 'dead', now() - interval '1 s', 1)",
        id=destination.id,
    )
    release = receiver.hangs()
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    assert [row.attempts for row in yard.rows()] == [1, 0, 0, 0, 0]
    release()
    delivery.wait_until_idle()
    assert receiver.most_in_flight == 1
    assert [yard.row(one).state for one in documents] == ["delivered"] * 5
    assert [yard.row(one).attempts for one in documents] == [1] * 5
    assert yard.runtime(destination).lost_leases == 0


def test_a_delivery_that_killed_every_holder_fails_without_another_request(
    yard, delivery, receiver
):
    destination = yard.destination(receiver.url)
    document = yard.one(destination)
    yard.execute("UPDATE deliveries SET attempts = 10")
    delivery.deliver(destination)
    delivery.wait_until_idle()
    row = yard.row(document)
    assert (row.state, row.attempts) == ("failed", 10)
    assert row.last_error == "10 attempts began and none came back"
    assert receiver.received == []


def test_a_stop_waits_for_requests_in_flight(yard, delivery, receiver):
    release = receiver.hangs()
    destination = yard.destination(receiver.url)
    document = yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    threading.Timer(0.3, release).start()
    delivery.pump.stop()
    assert not delivery.pump.alive
    assert yard.row(document).state == "delivered"
    assert yard.runtime(destination).holder is None


def test_a_stop_hands_back_what_does_not_end_in_time(yard, make_delivery, receiver, monkeypatch):
    monkeypatch.setattr(pump, "GRACE_SECONDS", 0.3)
    delivery = make_delivery()
    receiver.hangs()
    destination = yard.destination(receiver.url, concurrency={"min": 2, "max": 2})
    for _ in range(5):
        yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: len(receiver.received) == 2)
    began_at = time.monotonic()
    delivery.pump.stop()
    assert time.monotonic() - began_at < 10
    assert not delivery.pump.alive
    assert [(row.state, row.attempts) for row in yard.rows()] == [("pending", 0)] * 5
    assert yard.runtime(destination).holder is None


def test_a_lease_for_a_pump_that_is_stopping_is_released(yard, delivery, receiver):
    destination = yard.destination(receiver.url)
    yard.one(destination)
    delivery.pump.stop()
    delivery.deliver(destination)
    assert yard.runtime(destination).holder is None
    assert receiver.received == []


def test_a_destination_that_is_held_elsewhere_is_left_alone(yard, delivery, receiver):
    destination = yard.destination(receiver.url)
    yard.one(destination)
    with transaction(yard.engine) as connection:
        assert leases.acquire(connection, DEFAULT_TENANT, destination.id, "another", 60)
    delivery.deliver(destination)
    assert delivery.pump.held == 0
    assert yard.states() == {"pending": 1}


def test_a_disabled_destination_gets_nothing_and_is_let_go(yard, delivery, receiver):
    destination = yard.destination(receiver.url, enabled=False)
    yard.one(destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert yard.states() == {"pending": 1}
    assert yard.runtime(destination).holder is None
    yard.execute("UPDATE destinations SET enabled = true")
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert yard.states() == {"delivered": 1}


def test_disabling_is_noticed_while_requests_hang(yard, make_delivery, receiver):
    delivery = make_delivery(concurrency=1, lease_seconds=0.6)
    release = receiver.hangs()
    destination = yard.destination(receiver.url)
    # So many that no page is read meanwhile.
    yard.store(*[yard.document() for _ in range(100)], to=destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    yard.disable(destination)
    for _ in range(2):  # behind the second renewal, what the first one saw is heeded
        before = yard.runtime(destination).lease_expires_at
        wait_until(lambda b=before: yard.runtime(destination).lease_expires_at > b)
    release()
    delivery.wait_until_idle()
    assert len(receiver.received) == 1


def test_a_ring_while_the_lease_is_being_released_is_not_lost(
    yard, delivery, receiver, monkeypatch
):
    destination = yard.destination(receiver.url)
    yard.one(destination)
    release = Outbox.release
    late = []

    async def store_then_release(self, lease, *found_out):
        if not late:
            # Committed behind the last read; the ring finds a holder and leaves it at that.
            late.append(yard.one(destination))
            delivery.deliver(destination)
        await release(self, lease, *found_out)

    monkeypatch.setattr(Outbox, "release", store_then_release)
    delivery.deliver(destination)
    wait_until(lambda: late and yard.row(late[0]).state == "delivered")


def test_a_row_that_commits_late_behind_the_last_read_is_found(yard, delivery, receiver):
    destination = yard.destination(receiver.url, concurrency={"min": 2})
    early, later = yard.document(), yard.document()
    release = receiver.hangs()
    yard.store(later, to=destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    yard.store(early, to=destination)
    delivery.deliver(destination)
    wait_until(lambda: len(receiver.received) == 2)
    release()
    delivery.wait_until_idle()
    assert yard.states() == {"delivered": 2}


def test_what_another_process_was_rung_for_is_found_by_looking(yard, delivery, receiver):
    release = receiver.hangs()
    destination = yard.destination(receiver.url, concurrency={"min": 2})
    yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    yard.one(destination)  # nobody rings here
    wait_until(lambda: len(receiver.received) == 2, 10)
    release()


def test_a_destination_that_hangs_does_not_delay_another(yard, delivery, make_receiver):
    hanging, quick = make_receiver(), make_receiver()
    hanging.hangs()
    slow = yard.destination(hanging.url, "slow", concurrency={"min": 50}, timeout_seconds=60)
    fast = yard.destination(quick.url, "fast")
    for _ in range(200):
        yard.one(slow)
    delivery.deliver(slow)
    wait_until(lambda: hanging.in_flight == 50)
    yard.store(*[yard.document() for _ in range(100)], to=fast)
    delivery.deliver(fast)
    wait_until(lambda: len(quick.received) == 100)
    # None of those that hang has come to its end meanwhile.
    assert hanging.in_flight == hanging.most_in_flight == 50


def test_the_limit_holds_and_is_used(yard, make_delivery, receiver):
    delivery = make_delivery()
    release = receiver.hangs()
    destination = yard.destination(receiver.url, concurrency={"min": 7, "max": 7})
    yard.store(*[yard.document() for _ in range(50)], to=destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.in_flight == 7)
    release()
    delivery.wait_until_idle()
    assert receiver.most_in_flight == 7
    assert yard.states() == {"delivered": 50}


def test_retries_and_new_rows_share_the_way(yard, make_delivery, receiver):
    delivery = make_delivery(concurrency=1)
    destination = yard.destination(receiver.url)
    retries = [yard.one(destination) for _ in range(6)]
    yard.execute("UPDATE deliveries SET attempts = 1, due_at = now() - interval '1 min'")
    fresh = [yard.one(destination) for _ in range(6)]
    delivery.deliver(destination)
    delivery.wait_until_idle()
    seqs = [int(one.rsplit("_", 1)[1]) for one in receiver.ids]
    assert {one.seq for one in retries} & set(seqs[:4])
    assert {one.seq for one in fresh} & set(seqs[:4])
    assert [yard.row(one).attempts for one in retries] == [2] * 6


def test_a_crowded_process_passes_a_busy_destination_on(
    yard, make_delivery, make_receiver, monkeypatch
):
    monkeypatch.setattr(holder, "TENURE_SECONDS", 0.5)
    delivery = make_delivery(concurrency=2)
    hanging, busy = make_receiver(), make_receiver()
    hanging.hangs()
    other, destination = yard.destination(hanging.url, "b"), yard.destination(busy.url, "a")
    yard.one(other)
    delivery.deliver(other)
    wait_until(lambda: hanging.received)
    done = threading.Event()

    def keep_busy():
        while not done.is_set():
            yard.store(*[yard.document() for _ in range(50)], to=destination)
            delivery.pump.ring(DEFAULT_TENANT, destination.id)

    yard.one(destination)
    delivery.deliver(destination)
    source = threading.Thread(target=keep_busy)
    source.start()
    try:
        wait_until(lambda: destination.id in delivery.bells.rung)
    finally:
        done.set()
        source.join()
    assert yard.states().keys() <= {"pending", "delivered"}
    assert len(set(busy.ids)) == len(busy.ids)


def test_results_outlive_a_restart_of_the_database(make_postgres, make_delivery, receiver):
    server = make_postgres(fsync="off")
    migrate(server.url)
    engine = make_engine(server.url, application_name="test", pool_size=2)
    yard, delivery = Yard(engine), make_delivery(server.url)
    release = receiver.hangs()
    destination = yard.destination(receiver.url)
    document = yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    server.kill()
    release()
    wait_until(lambda: receiver.in_flight == 0)
    server.start()
    engine.dispose()
    wait_until(lambda: yard.row(document).state == "delivered")
    delivery.wait_until_idle()
    assert len(receiver.received) == 1
    engine.dispose()


def test_a_destination_gets_no_more_a_second_than_it_allows_whoever_sends(
    yard, make_delivery, receiver
):
    """Three pumps in turn: each takes over where the one before stopped."""
    destination = yard.destination(receiver.url, max_per_second=20, concurrency={"min": 50})
    yard.store(*[yard.document() for _ in range(70)], to=destination)
    begun_at = []

    async def answer(_):
        begun_at.append(time.monotonic())
        return web.Response()

    receiver.answer = answer
    for several in (15, 35, 70):
        delivery = make_delivery()
        delivery.deliver(destination)
        wait_until(lambda several=several: len(receiver.received) >= several)
        delivery.pump.stop()
    assert yard.states() == {"delivered": 70}
    # Answers are timed at the receiver, a loop's delay behind the starts.
    busiest = max(sum(begin <= one < begin + 0.95 for one in begun_at) for begin in begun_at)
    assert busiest <= 20


def test_the_limit_and_its_reason_are_kept_for_the_next_holder_and_for_people(
    yard, make_delivery, receiver
):
    async def answer(_):
        # Five at a time, and 429 for everybody else.
        return web.Response(status=429 if receiver.in_flight > 5 else 200)

    async def slowly(request):
        await asyncio.sleep(0.02)
        return await answer(request)

    receiver.answer = slowly
    destination = yard.destination(receiver.url)
    yard.store(*[yard.document() for _ in range(400)], to=destination)
    first = make_delivery()
    first.deliver(destination)
    wait_until(lambda: len(receiver.received) >= 250)
    first.pump.stop()
    kept = yard.runtime(destination)
    assert kept.holder is None
    assert 3 <= kept.concurrency_limit <= 5
    assert "429" in kept.concurrency_reason
    yard.make_due()
    second = make_delivery()
    second.deliver(destination)
    second.wait_until_idle()
    assert abs(yard.runtime(destination).concurrency_limit - kept.concurrency_limit) <= 2


def test_a_receiver_that_is_down_is_probed_and_not_hammered(yard, delivery, make_receiver):
    receiver = make_receiver()
    receiver.answers(503)
    destination = yard.destination(receiver.url)
    yard.store(*[yard.document() for _ in range(300)], to=destination)
    delivery.deliver(destination)
    wait_until(lambda: "one request every" in (yard.runtime(destination).concurrency_reason or ""))
    untouched = [row for row in yard.rows() if row.attempts == 0]
    assert len(untouched) >= 250
    receiver.answers(200)
    wait_until(lambda: yard.states().get("delivered", 0) >= 250)
