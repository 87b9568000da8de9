"""What is on the queue, to the field: workers of the release before read it as well.

A field that they do not know fails their actor, and twenty tries later the chunk is a dead letter.
So actors take a new field in one release, and only the next one sends it (CONTRIBUTING.md). This
test is changed in that second release.
"""

from __future__ import annotations

import json
import uuid

import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Retries

from app.queue.messages import chunk_message, doorbell_message
from app.queue.names import DELIVER_DESTINATION, INGEST_CHUNK
from worker.actors import register_delivery, register_ingest

ENVELOPE = {
    "queue_name",
    "actor_name",
    "args",
    "kwargs",
    "options",
    "message_id",
    "message_timestamp",
}


def chunk(batch_id=None):
    made = chunk_message("ingest", 1, [b'{"id": "a", "content": "b"}'], batch_id)
    return json.loads(made.head + b"1790000000000000" + made.tail)


def doorbell():
    return json.loads(doorbell_message(1, uuid.uuid4())[1])


def test_a_chunk_has_the_fields_that_the_release_before_reads():
    single, part = chunk(), chunk(uuid.uuid4())
    assert single.keys() == part.keys() == ENVELOPE
    assert single["kwargs"].keys() == {"tenant_id", "chunk_id", "seq", "documents"}
    assert part["kwargs"].keys() == single["kwargs"].keys() | {"batch_id"}
    assert single["options"].keys() == {"redis_message_id"}


def test_a_doorbell_has_the_fields_that_the_release_before_reads():
    assert doorbell().keys() == ENVELOPE
    assert doorbell()["kwargs"].keys() == {"tenant_id", "destination_id"}
    assert doorbell()["options"].keys() == {"redis_message_id"}


def test_actors_have_the_names_and_queues_of_the_release_before_and_take_all_fields():
    broker, taken = StubBroker(middleware=[Retries()]), []
    register_ingest(broker, taken.append)
    register_delivery(broker, lambda *given: taken.append(given))
    for message, queue in ((chunk(uuid.uuid4()), "ingest"), (doorbell(), "deliver")):
        actor: dramatiq.Actor = broker.get_actor(message["actor_name"])
        assert actor.queue_name == queue
        actor.fn(**message["kwargs"])
    assert len(taken) == 2
    queues = {one for one in broker.get_declared_queues() if not one.endswith(".DQ")}
    assert queues == {"ingest.high", "ingest", "ingest.bulk", "deliver"}
    assert (INGEST_CHUNK, DELIVER_DESTINATION) == ("chunk.ingest", "destination.deliver")
