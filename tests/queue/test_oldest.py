"""How old the queue is: whatever may still come out of it counts, wherever it is."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest
import redis

from app.domain.errors import Unavailable
from app.domain.identifiers import first_id_of, id_made_at, made_at
from app.queue import oldest
from app.queue.broker import HardenedBroker
from app.queue.connection import connect, connect_async
from app.queue.messages import read_message

NAMESPACE = "docyard"
LONG_AGO_MS = 1_700_000_000_000
LONG_AGO = datetime.fromtimestamp(LONG_AGO_MS / 1000, UTC)


@pytest.fixture
def client(redis_url):
    made = connect(redis_url)
    yield made
    made.close()


def since(client):
    return oldest.queued_since(client, NAMESPACE)


def test_an_empty_queue_is_as_young_as_now(client):
    before = datetime.now(UTC)
    assert before <= since(client) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "key", ["ingest.msgs", "ingest.high.msgs", "ingest.bulk.DQ.msgs", "ingest.XQ.msgs"]
)
def test_the_oldest_counts_wherever_it_is(client, key):
    for at in (int(time.time() * 1000), LONG_AGO_MS, LONG_AGO_MS + 1):
        client.hset(f"{NAMESPACE}:{key}", str(id_made_at(at)), b"body")
    assert since(client) == LONG_AGO


@pytest.mark.parametrize(
    "message_id",
    [
        "9b0859c6-e9c9-4649-826f-1f98b78dc560",
        "by hand",
        b"\xff",
        "1a000000-0000-7000-8000-000000000000",
    ],
    ids=["UUIDv4", "words", "bytes", "of the future"],
)
def test_an_id_without_a_time_that_can_be_true_leaves_it_unknown(client, message_id):
    client.hset(f"{NAMESPACE}:ingest.msgs", message_id, b"body")
    assert since(client) is None


def test_a_very_long_queue_is_not_looked_through(client, monkeypatch):
    monkeypatch.setattr(oldest, "MOST_ASKED", 1)
    for _ in range(2):
        client.hset(f"{NAMESPACE}:ingest.msgs", str(id_made_at(LONG_AGO_MS)), b"body")
    assert since(client) is None


def test_a_message_that_is_tried_again_stays_as_old_as_it_is(client):
    broker = HardenedBroker(client, namespace=NAMESPACE, middleware=[])
    broker.declare_queue("ingest")
    message = dramatiq.Message(
        queue_name="ingest",
        actor_name="a",
        args=(),
        kwargs={},
        options={},
        message_timestamp=LONG_AGO_MS,
    )
    for delay in (None, 60_000):
        sent = broker.enqueue(message, delay=delay)
        assert since(client) == LONG_AGO
        assert uuid.UUID(sent.options["redis_message_id"]).version == 7
    broker.close()


@pytest.mark.parametrize("timestamp", [10**30, -1, "soon"])
def test_a_message_of_others_with_a_strange_time_is_enqueued_all_the_same(client, timestamp):
    broker = HardenedBroker(client, namespace=NAMESPACE, middleware=[])
    broker.declare_queue("ingest")
    message = dramatiq.Message("ingest", "a", (), {}, {}, message_timestamp=timestamp)
    sent = broker.enqueue(message)
    [body] = client.hvals(f"{NAMESPACE}:ingest.msgs")
    assert read_message(body, "ingest").message_id == sent.message_id
    broker.close()


def test_ids_say_when_they_were_made():
    made = id_made_at(LONG_AGO_MS)
    assert made_at(made) == LONG_AGO
    assert made_at(uuid.uuid4()) is None
    assert first_id_of(LONG_AGO) <= made < first_id_of(LONG_AGO + timedelta(milliseconds=1))


def test_the_last_order_number_is_what_redis_gave_or_else_its_time(client, redis_url):
    asynchronous = connect_async(redis_url)

    async def both():
        first = await oldest.last_accepted_async(asynchronous, NAMESPACE)
        client.set(f"{NAMESPACE}:seq", 42)
        second = await oldest.last_accepted_async(asynchronous, NAMESPACE)
        await asynchronous.aclose()
        return first, second

    before = time.time_ns() // 1000
    first, second = asyncio.run(both())
    assert before <= first <= time.time_ns() // 1000
    assert second == oldest.last_accepted(client, NAMESPACE) == 42


def test_redis_away_is_a_sentence():
    nowhere = redis.Redis(host="127.0.0.1", port=1)
    with pytest.raises(Unavailable, match="Redis cannot be reached"):
        oldest.last_accepted(nowhere, NAMESPACE)
