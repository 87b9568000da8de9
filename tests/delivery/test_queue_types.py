"""Queue types, versions one by one, and batches, from the rows to the receiver."""

import asyncio
import json
import uuid

import pytest
from aiohttp import web
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks import Webhook

from app.domain.documents import DEFAULT_TENANT
from app.domain.routing import Route
from app.storage.engine import transaction
from app.storage.ingest import ClassifiedChunk, apply
from tests.delivery.conftest import wait_until

ONE_AT_A_TIME = {"min": 1, "max": 1}


def seq_of(webhook_id):
    return int(webhook_id.split("_")[2])


def store(yard, destination, *documents):
    """As ingest does, with ranks where the destination goes by priority."""
    chunk = ClassifiedChunk(
        tenant_id=DEFAULT_TENANT, chunk_id=uuid.uuid4(), documents=list(documents), rejections=[]
    )
    with transaction(yard.engine) as connection:
        route = Route.to(destination, "broadcast")
        apply(connection, DEFAULT_TENANT, [chunk], lambda _: [route])


def hold_first(receiver):
    """Let the first request wait until the returned function is called."""
    released = asyncio.Event()

    async def answer(_):
        if len(receiver.received) == 1:
            await released.wait()
        return web.Response()

    receiver.answer = answer
    return lambda: receiver.loop.loop.call_soon_threadsafe(released.set)


@pytest.mark.parametrize(
    ("queue", "order"),
    [("fifo", [0, 1, 2, 3, 4, 5]), ("lifo", [2, 5, 4, 3, 1, 0]), ("priority", [2, 4, 0, 5, 1, 3])],
)
def test_what_comes_meanwhile_takes_its_place(yard, delivery, receiver, queue, order):
    priorities = [50, None, 7, 2000, 3, 50]
    destination = yard.destination(receiver.url, queue=queue, concurrency=ONE_AT_A_TIME)
    release = hold_first(receiver)
    documents = [yard.document(priority=one) for one in priorities]
    store(yard, destination, *documents[:3])
    delivery.deliver(destination)
    wait_until(lambda: receiver.in_flight == 1)
    store(yard, destination, *documents[3:])
    if queue != "fifo":
        # The read that the ring leads to is over when the one behind it has begun.
        begun = delivery.bells.cleared
        delivery.pump.ring(DEFAULT_TENANT, destination.id)
        wait_until(lambda: delivery.bells.cleared >= begun + 2)
    release()
    delivery.wait_until_idle()
    expected = [documents[number].seq for number in order]
    assert [seq_of(one) for one in receiver.ids] == expected


def test_a_priority_counts_only_where_the_destination_says_so(yard, receiver):
    fifo = yard.destination(receiver.url, "fifo")
    urgent = yard.destination(receiver.url, "urgent", queue="priority")
    document, other = yard.document(priority=3), yard.document()
    store(yard, fifo, document)
    store(yard, urgent, other)
    assert [row.rank for row in yard.rows()] == [0, 1000]


def test_versions_of_a_document_come_one_after_the_other(yard, make_delivery, receiver):
    delivery = make_delivery()
    destination = yard.destination(receiver.url, ordered=True, concurrency={"min": 20})
    in_flight, overlaps = set(), []

    async def answer(request):
        document_id = request.headers["webhook-id"].split("_")[1]
        overlaps.extend({document_id} & in_flight)
        in_flight.add(document_id)
        await asyncio.sleep(0.005)
        in_flight.discard(document_id)
        return web.Response()

    receiver.answer = answer
    firsts = [yard.document() for _ in range(10)]
    yard.store(*firsts, to=destination)
    delivery.deliver(destination)
    for _ in range(15):
        for one in firsts:
            yard.one(destination, id=one.id)
        delivery.pump.ring(DEFAULT_TENANT, destination.id)
    wait_until(lambda: yard.states().get("pending", 0) == 0)
    delivery.wait_until_idle()
    assert overlaps == []
    for document in firsts:
        seqs = [seq_of(one) for one in receiver.ids if document.id.hex in one]
        assert seqs == sorted(set(seqs))
        newest = max(row.seq for row in yard.rows() if row.document_id == document.id)
        assert seqs[-1] == newest


def test_a_newer_version_that_was_accepted_before_the_older_one_is_sent(yard, delivery, receiver):
    """Chunks commit out of order, and the client's version decides which one is newer."""
    destination = yard.destination(receiver.url, ordered=True, concurrency={"min": 20})
    document_id = uuid.uuid4()
    newer, older = (yard.document(id=document_id, version=number) for number in (2, 1))
    release = receiver.hangs()
    yard.store(older, to=destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.in_flight == 1)
    yard.store(newer, to=destination)
    release()
    delivery.pump.ring(DEFAULT_TENANT, destination.id)
    wait_until(lambda: yard.row(newer).state == "delivered")
    assert [seq_of(one) for one in receiver.ids] == [older.seq, newer.seq]


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_documents_travel_together_signed_as_one(yard, delivery, receiver, form):
    destination = yard.destination(
        receiver.url, batch={"max_items": 4, "max_wait_seconds": 0.2, "format": form}
    )
    documents = [yard.document(f"text {number}") for number in range(10)]
    yard.store(*documents, to=destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert yard.states() == {"delivered": 10}
    sizes, seen = [], []
    for request in receiver.received:
        assert request.headers["webhook-id"].startswith("batch_")
        if form == "json":
            items = Webhook(destination.secret).verify(request.body, request.headers)
            assert request.headers["content-type"] == "application/json"
        else:
            items = [json.loads(line) for line in request.body.decode().splitlines()]
            assert request.headers["content-type"] == "application/x-ndjson"
        sizes.append(len(items))
        seen += [(seq_of(one["id"]), one["type"], one["data"]["content"]) for one in items]
    assert sizes == [4, 4, 2]
    assert seen == [(one.seq, "document.classified", one.content) for one in documents]
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 3


def test_cloudevents_travel_together_in_their_batch_format(yard, delivery, receiver):
    destination = yard.destination(
        receiver.url, body="cloudevents", batch={"max_items": 2, "max_wait_seconds": 0}
    )
    yard.store(yard.document("a"), yard.document("b"), to=destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    (request,) = receiver.received
    assert request.headers["content-type"] == "application/cloudevents-batch+json"
    events = [JSONFormat().read(None, json.dumps(one)) for one in json.loads(request.body)]
    assert [one.get_data()["content"] for one in events] == ["a", "b"]


def test_a_batch_is_tried_again_as_a_whole_under_its_id(yard, delivery, receiver):
    receiver.answers(503)
    destination = yard.destination(receiver.url, batch={"max_items": 5, "max_wait_seconds": 0})
    yard.store(*[yard.document() for _ in range(5)], to=destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    rows = yard.rows()
    assert {(row.state, row.attempts) for row in rows} == {("pending", 1)}
    assert len({row.due_at for row in rows}) == 1
    receiver.answers(200)
    yard.make_due()
    yard.one(destination)  # does not mix with them
    delivery.deliver(destination)
    delivery.wait_until_idle()
    first, *again = receiver.received
    same = [one for one in again if one.headers["webhook-id"] == first.headers["webhook-id"]]
    assert [one.body for one in same] == [first.body]
    assert yard.states() == {"delivered": 6}


def test_what_was_replaced_meanwhile_does_not_travel(yard, delivery, receiver):
    destination = yard.destination(receiver.url, batch={"max_items": 3, "max_wait_seconds": 0.3})
    replaced, kept = yard.one(destination), yard.one(destination)
    newer = yard.one(destination, id=replaced.id)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    (request,) = receiver.received
    assert [seq_of(one["id"]) for one in json.loads(request.body)] == [kept.seq, newer.seq]
    assert yard.states() == {"superseded": 1, "delivered": 2}
