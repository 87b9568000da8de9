"""A replay beside a newer version, or the deletion, of its document: whoever comes first.

Two connections, one in the middle of its transaction while the other begins.
"""

from __future__ import annotations

import threading
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from app.domain.delivery_ids import DeliveryPlace
from app.domain.documents import DEFAULT_TENANT
from app.domain.errors import DeliveryNotReplayable
from app.domain.operational_events import OperationalEventType
from app.domain.retention import Kept
from app.domain.routing import Route
from app.services.deliveries import replay_delivery
from app.storage import documents, operational_events, replays, retention
from app.storage.delivery_search import DeliveryFilter
from app.storage.engine import transaction
from app.storage.ingest import ClassifiedChunk, apply
from app.storage.operational_events import OperationalEvent
from tests.acceptance.conftest import until


@pytest.fixture
def failed(engine, make_document, make_target, store):
    """A document whose delivery has failed, and the place of that."""
    target, document = make_target(), make_document("first")
    store(document, to=(target,))
    with transaction(engine) as connection:
        connection.execute(
            text("UPDATE deliveries SET state = 'failed', ended_at = now() - interval '1 s'")
        )
    return document, target, DeliveryPlace(document.id, document.seq, target.id, 0)


@pytest.fixture
def beside(engine):
    """Begin something on a thread; return when it waits for a lock, or did not have to."""
    begun = []

    def begin(work, waiting=1):
        thread = threading.Thread(target=work)
        begun.append(thread)
        thread.start()
        assert until(lambda: not thread.is_alive() or waits(engine) >= waiting, 20)
        return thread

    yield begin
    for thread in begun:
        thread.join()


def waits(engine):
    """Return how many connections wait for another one."""
    with transaction(engine) as connection:
        return connection.execute(
            text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        ).scalar_one()


def plan_one(connection, place):
    assert len(replays.plan(connection, DEFAULT_TENANT, [place])) == 1


def plan_by_filter(connection, _):
    by = DeliveryFilter(states=("failed",))
    replays.create(connection, DEFAULT_TENANT, uuid.uuid4(), by)
    assert replays.advance(connection, DEFAULT_TENANT).planned == 1


def rows(engine, document):
    with transaction(engine) as connection:
        return [
            tuple(row)
            for row in connection.execute(
                text(
                    "SELECT seq, generation, state FROM deliveries WHERE document_id = :id"
                    " ORDER BY seq, generation"
                ),
                {"id": document.id},
            )
        ]


@pytest.mark.parametrize("plan", [plan_one, plan_by_filter])
def test_a_newer_version_waits_for_a_replay_and_supersedes_it(
    engine, failed, make_document, store, beside, plan
):
    document, target, place = failed
    newer = make_document("second", id=document.id)
    with transaction(engine) as connection:
        plan(connection, place)
        storing = beside(lambda: store(newer, to=(target,)))
    storing.join()
    assert rows(engine, document) == [
        (document.seq, 0, "failed"),
        (document.seq, 1, "superseded"),
        (newer.seq, 0, "pending"),
    ]


def test_a_replay_waits_for_a_newer_version_and_is_refused(engine, failed, make_document, beside):
    document, target, place = failed
    newer = make_document("second", id=document.id)
    chunk = ClassifiedChunk(
        tenant_id=DEFAULT_TENANT, chunk_id=uuid.uuid4(), documents=[newer], rejections=[]
    )
    refused = []

    def replay():
        try:
            replay_delivery(engine, DEFAULT_TENANT, place)
        except DeliveryNotReplayable as error:
            refused.append(error)

    with transaction(engine) as connection:
        apply(connection, DEFAULT_TENANT, [chunk], lambda _: [Route(target.id, "broadcast")])
        replaying = beside(replay)
    replaying.join()
    assert len(refused) == 1
    assert rows(engine, document) == [(document.seq, 0, "failed"), (newer.seq, 0, "pending")]


def test_a_deletion_waits_for_a_replay_and_cancels_it(engine, failed, beside):
    document, _, place = failed

    def delete():
        with transaction(engine) as connection:
            documents.delete(connection, DEFAULT_TENANT, document.id)

    with transaction(engine) as connection:
        plan_one(connection, place)
        deleting = beside(delete)
    deleting.join()
    assert rows(engine, document) == [(document.seq, 0, "failed"), (document.seq, 1, "cancelled")]


def test_a_replay_waits_for_a_deletion_and_is_refused(engine, failed, beside):
    document, _, place = failed

    def replay():
        with suppress(DeliveryNotReplayable):
            replay_delivery(engine, DEFAULT_TENANT, place)

    with transaction(engine) as connection:
        documents.delete(connection, DEFAULT_TENANT, document.id)
        replaying = beside(replay)
    replaying.join()
    assert rows(engine, document) == [(document.seq, 0, "failed")]


@pytest.fixture
def event(engine, make_target):
    """The place of an operational event's delivery that has failed."""
    subject, subscriber = make_target("subject"), make_target("subscriber", events=["*"])
    with transaction(engine) as connection:
        operational_events.emit(
            connection, DEFAULT_TENANT, OperationalEventType.DESTINATION_DISABLED, subject.id, {}
        )
        row = connection.execute(
            text(
                "UPDATE deliveries SET state = 'failed', ended_at = now()"
                " RETURNING document_id, seq"
            )
        ).one()
    return DeliveryPlace(row.document_id, row.seq, subscriber.id, 0)


def remove_events(engine):
    with transaction(engine) as connection:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        return retention.STEPS[Kept.EVENTS](connection, DEFAULT_TENANT, tomorrow, None).removed


def test_an_event_that_retention_removes_meanwhile_is_not_planned_anew(engine, event):
    """Nobody could send it: it would stay pending for ever, in front of what comes behind it."""
    with transaction(engine) as connection:
        assert replays.replayable(connection, DEFAULT_TENANT, [event]) == [event]
        assert remove_events(engine) == 1
        assert replays.plan(connection, DEFAULT_TENANT, [event]) == []


def test_retention_leaves_an_event_that_is_being_planned_anew(engine, event):
    with transaction(engine) as connection:
        assert len(replays.plan(connection, DEFAULT_TENANT, [event])) == 1
        assert remove_events(engine) == 0
    assert remove_events(engine) == 0


def test_an_event_that_is_planned_anew_while_retention_looks_stays(engine, make_target):
    """No lock makes this moment; without indexes the look takes long enough to come upon it."""
    subject, subscriber = make_target("subject"), make_target("subscriber", events=["*"])
    told = OperationalEvent(
        type=OperationalEventType.DESTINATION_DISABLED, destination_id=subject.id, data={}
    )
    with transaction(engine) as connection:
        operational_events.emit_all(connection, DEFAULT_TENANT, [told] * 900)
        (*_, last) = connection.execute(
            text(
                "WITH ended AS (UPDATE deliveries SET state = 'failed', ended_at = now()"
                " RETURNING document_id, seq) SELECT * FROM ended ORDER BY document_id"
            )
        )
    place = DeliveryPlace(last.document_id, last.seq, subscriber.id, 0)
    tomorrow = datetime.now(UTC) + timedelta(days=1)

    def replay(pause):
        threading.Event().wait(pause)
        with transaction(engine) as connection:
            replays.plan(connection, DEFAULT_TENANT, [place])

    for number in range(10):
        replaying = threading.Thread(target=replay, args=[number * 0.005])
        with engine.connect() as connection:
            for way in ("indexscan", "indexonlyscan", "bitmapscan"):
                connection.execute(text(f"SET LOCAL enable_{way} = off"))
            replaying.start()
            retention.STEPS[Kept.EVENTS](connection, DEFAULT_TENANT, tomorrow, None)
            planned, stored = connection.execute(
                text(
                    "SELECT EXISTS (SELECT 1 FROM deliveries WHERE state = 'pending'),"
                    " EXISTS (SELECT 1 FROM operational_events WHERE id = :id)"
                ),
                {"id": last.document_id},
            ).one()
            connection.rollback()
        replaying.join()
        assert stored or not planned
        with transaction(engine) as connection:
            connection.execute(text("DELETE FROM deliveries WHERE state = 'pending'"))


def test_a_replay_takes_its_documents_in_the_order_in_which_a_chunk_does(
    engine, make_document, make_target, store, beside
):
    """Both wait for the first of two; one that had taken the second already would deadlock."""
    target = make_target()
    first, second = (make_document(id=one) for one in sorted(uuid.uuid4() for _ in range(2)))
    store(first, second, to=(target,))
    with transaction(engine) as connection:
        connection.execute(text("UPDATE deliveries SET state = 'failed', ended_at = now()"))
    places = [DeliveryPlace(one.id, one.seq, target.id, 0) for one in (second, first)]
    done = []

    def replace():
        store(*(make_document(id=one.id) for one in (first, second)), to=(target,))
        done.append("replaced")

    def replay():
        with transaction(engine) as connection:
            replays.plan(connection, DEFAULT_TENANT, places)
        done.append("replayed")

    with transaction(engine) as connection:
        connection.execute(
            text("SELECT 1 FROM documents WHERE id = :id FOR UPDATE"), {"id": first.id}
        )
        working = [beside(replace), beside(replay, waiting=2)]
    for thread in working:
        thread.join()
    assert sorted(done) == ["replaced", "replayed"]
    with transaction(engine) as connection:
        outdated = connection.execute(
            text(
                "SELECT count(*) FROM deliveries d JOIN documents o ON o.id = d.document_id"
                " WHERE d.state IN ('pending', 'held') AND d.seq <> o.seq"
            )
        ).scalar_one()
    assert outdated == 0
