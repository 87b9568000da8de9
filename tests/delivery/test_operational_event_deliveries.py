"""Operational events on their way: caused by deliveries, delivered, and causing none."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_binary, from_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from standardwebhooks import Webhook

from app.domain.deliveries import RetryPolicy
from app.domain.delivery_ids import parse_delivery_id
from app.domain.documents import DEFAULT_TENANT
from app.domain.operational_events import OperationalEventType
from app.domain.verifying import parse_key, verify
from app.storage import operational_events
from app.storage.engine import transaction
from tests.delivery.conftest import wait_until


def events(yard):
    rows = yard.execute("SELECT type, data FROM operational_events ORDER BY id")
    return [tuple(row) for row in rows]


def test_what_has_failed_for_good_is_told_by_a_signed_webhook(
    yard, make_delivery, receiver, make_receiver
):
    delivery, watcher = make_delivery(policy=RetryPolicy(ladder_seconds=())), make_receiver()
    receiver.answers(503, "no luck")
    failing = yard.destination(receiver.url, events=["*"])
    watching = yard.destination(
        watcher.url, key="watching", events=["delivery.exhausted"], documents=False
    )
    document = yard.one(failing)
    delivery.deliver(failing)
    delivery.wait_until_idle()
    delivery.deliver(watching)
    delivery.wait_until_idle()
    (told,) = watcher.received
    Webhook(watching.secret).verify(told.body, told.headers)
    body = orjson.loads(told.body)
    data = body["data"]
    assert (body["type"], data["destination_key"]) == ("delivery.exhausted", failing.key)
    assert (data["document_id"], data["attempts"], data["status"]) == (str(document.id), 1, 503)
    assert data["error"] == "HTTP 503 Service Unavailable: no luck"
    assert data["webhook_id"] == receiver.ids[0]
    assert parse_delivery_id(data["delivery_id"]) == (document.id, document.seq, failing.id, 0)
    assert told.webhook_id.startswith(f"msg_{body['id'].replace('-', '')}_")
    assert yard.states() == {"failed": 1, "delivered": 1}


@pytest.mark.parametrize(
    ("body", "read"), [("cloudevents", from_structured), ("cloudevents-binary", from_binary)]
)
def test_who_wants_cloudevents_is_told_in_them(
    yard, make_delivery, receiver, make_receiver, body, read
):
    delivery, watcher = make_delivery(policy=RetryPolicy(ladder_seconds=())), make_receiver()
    receiver.answers(503)
    failing = yard.destination(receiver.url)
    watching = yard.destination(
        watcher.url, key="watching", events=["*"], documents=False, body=body
    )
    yard.one(failing)
    delivery.deliver(failing)
    delivery.wait_until_idle()
    delivery.deliver(watching)
    delivery.wait_until_idle()
    (told,) = watcher.received
    verify(parse_key(watching.secret), told.headers, told.body, now=time.time())
    event = read(HTTPMessage(headers=told.headers, body=told.body), JSONFormat(), CloudEvent)
    assert (event.get_id(), event.get_type()) == (told.webhook_id, "delivery.exhausted")
    assert event.get_data()["destination_key"] == failing.key


def test_the_failure_of_an_event_is_told_to_nobody(yard, make_delivery, receiver, make_receiver):
    delivery, deaf = make_delivery(policy=RetryPolicy(ladder_seconds=())), make_receiver()
    receiver.answers(500)
    deaf.answers(500)
    failing = yard.destination(receiver.url)
    watching = yard.destination(deaf.url, key="watching", events=["*"], documents=False)
    yard.destination(deaf.url, key="third", events=["*"], documents=False)
    yard.one(failing)
    for destination in (failing, watching):
        delivery.deliver(destination)
        delivery.wait_until_idle()
    assert len(deaf.received) == 1
    assert yard.states() == {"failed": 2, "pending": 1}
    assert [kind for kind, _ in events(yard)] == ["delivery.exhausted"]


def test_a_destination_that_is_gone_is_told_once(yard, make_delivery, receiver):
    delivery = make_delivery()
    receiver.answers(410)
    gone = yard.destination(receiver.url)
    watching = yard.destination(
        receiver.url, key="watching", events=["destination.*"], documents=False
    )
    for _ in range(3):
        yard.one(gone)
    delivery.deliver(gone)
    delivery.wait_until_idle()
    disabled = [data for kind, data in events(yard) if kind == "destination.disabled"]
    assert [(one["destination_key"], one["reason"]) for one in disabled] == [
        (gone.key, "HTTP 410 Gone")
    ]
    rows = [row for row in yard.rows() if row.destination_id == watching.id]
    assert [(row.event_type, row.state) for row in rows] == [("destination.disabled", "pending")]


def test_one_that_hangs_holds_up_none_of_those_told_with_it(yard, delivery, receiver):
    """They are more than a read brings, and each is found without the others."""
    hangs = asyncio.Event()

    async def answer(_):
        if len(receiver.received) == 1:
            await hangs.wait()
        return web.Response()

    receiver.answer = answer
    subject = yard.destination(receiver.url, "subject")
    pager = yard.destination(
        receiver.url, "pager", events=["*"], documents=False, concurrency={"min": 5, "max": 5}
    )
    told = [
        operational_events.OperationalEvent(
            type=OperationalEventType.DELIVERY_EXHAUSTED, destination_id=subject.id, data={"n": n}
        )
        for n in range(250)
    ]
    with transaction(yard.engine) as connection:
        operational_events.emit_all(connection, DEFAULT_TENANT, told)
    delivery.deliver(pager)
    wait_until(lambda: yard.states().get("delivered") == 249, 10)
    receiver.loop.loop.call_soon_threadsafe(hangs.set)
    delivery.wait_until_idle()
