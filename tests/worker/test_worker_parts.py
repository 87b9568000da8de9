"""Chunks, poison, the sweeper and the supervisor."""

from __future__ import annotations

import os
import signal
import sys
import threading
import uuid
from pathlib import Path

import pytest
import redis
from sqlalchemy import text

from app.domain.documents import DEFAULT_TENANT
from app.domain.predictions import Prediction
from app.queue.messages import Chunk
from app.storage import attempt_days, dead_letters
from app.storage.dead_letters import DeadMessage
from app.storage.destinations import DestinationCache
from app.storage.engine import make_engine, transaction
from tests.acceptance.conftest import until
from worker.classification import ModelHolder
from worker.ingest import Ingest, Stopping, ingest
from worker.isolation import IsolatedClassifier
from worker.supervisor import Supervisor
from worker.sweeper import Sweeper

PROJECT = Path(__file__).parents[2]


class FakeModel:
    def __init__(self, *, usable=True):
        self.calls = []
        self._usable = usable

    def usable(self):
        return self._usable

    def classify(self, texts):
        self.calls.append(len(texts))
        return [Prediction("c", 0.5, "m") if self._usable else None for _ in texts]


@pytest.fixture
def engine(database_url):
    made = make_engine(database_url, application_name="test")
    yield made
    made.dispose()


@pytest.fixture
def make_parts(engine):
    def make(**changed):
        rung = []
        parts = {
            "engine": engine,
            "model": FakeModel(),
            "isolated": IsolatedClassifier(Path("nowhere")),
            "destinations": DestinationCache(),
            "ring": lambda _, ids: rung.extend(ids),
            "stopping": threading.Event(),
        }
        made = Ingest(**{**parts, **changed})
        return made, rung

    return make


def chunk(*contents, **fields):
    documents = [
        {"id": str(uuid.uuid4()), "content": one} if isinstance(one, str) else one
        for one in contents
    ]
    return Chunk(
        tenant_id=DEFAULT_TENANT,
        chunk_id=uuid.uuid4(),
        seq=1_790_000_000_000_000,
        documents=documents,
        **fields,
    )


def rows(engine, sql):
    with transaction(engine) as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


def add_destination(engine, key):
    from datetime import UTC, datetime

    from app.domain.destinations import DestinationInput, make_destination
    from app.storage import destinations

    given = DestinationInput(key=key, url="http://example.com/hook")
    made = make_destination(DEFAULT_TENANT, given, now=datetime.now(UTC))
    with transaction(engine) as connection:
        destinations.create(connection, made)
    return made


def test_a_chunk_is_classified_in_one_call_stored_routed_and_rung(engine, make_parts):
    parts, rung = make_parts()
    target = add_destination(engine, "a")
    ingest(parts, [chunk("one", "two", "three")])
    assert parts.model.calls == [3]
    assert rung == [target.id]
    assert rows(engine, "SELECT category, count(*) FROM documents GROUP BY 1") == [("c", 3)]
    assert rows(engine, "SELECT state, count(*) FROM deliveries GROUP BY 1") == [("pending", 3)]


def test_a_new_destination_gets_the_next_chunk(engine, make_parts):
    parts, rung = make_parts()
    ingest(parts, [chunk("before")])
    target = add_destination(engine, "late")
    ingest(parts, [chunk("after")])
    assert rung == [target.id]
    assert rows(engine, "SELECT count(*) FROM deliveries") == [(1,)]


def test_a_chunk_that_comes_twice_is_applied_once_and_rings_again(engine, make_parts):
    parts, rung = make_parts()
    target = add_destination(engine, "a")
    one = chunk("text")
    ingest(parts, [one])
    ingest(parts, [one])
    assert rung == [target.id, target.id]
    assert parts.model.calls == [1]
    assert rows(engine, "SELECT tries, stored FROM receipts") == [(2, 1)]


def test_what_cannot_be_read_is_set_aside_and_the_rest_stored(engine, make_parts):
    parts, _ = make_parts()
    bad = [
        {"id": "seven", "content": "a"},
        {"id": str(uuid.uuid4())},
        {"id": str(uuid.uuid4()), "content": 7},
        {"id": str(uuid.uuid4()), "content": "a\0"},
        {"id": str(uuid.uuid4()), "content": "a", "version": -3},
    ]
    ingest(parts, [chunk("good", *bad, "also good")])
    assert rows(engine, "SELECT count(*) FROM documents") == [(2,)]
    assert rows(engine, "SELECT count(*), count(DISTINCT body) FROM rejected_documents") == [(5, 5)]
    assert rows(engine, "SELECT stored, stale, rejected FROM receipts") == [(2, 0, 5)]


def test_what_only_postgres_refuses_is_set_aside_as_well(engine, make_parts):
    parts, _ = make_parts()
    bad = {"id": str(uuid.uuid4()), "content": "a", "attributes": {"n": "\0"}}
    ingest(parts, [chunk("good", bad, "also good")])
    assert rows(engine, "SELECT stored, rejected FROM receipts") == [(2, 1)]


def test_without_a_model_documents_are_stored_unclassified(engine, make_parts):
    parts, _ = make_parts(model=FakeModel(usable=False))
    ingest(parts, [chunk("text")])
    assert rows(engine, "SELECT category, model_version FROM documents") == [(None, None)]


def test_an_unusable_model_is_no_model(tmp_path):
    assert ModelHolder(tmp_path).classify(["a", "b"]) == [None, None]


def test_a_ring_that_fails_fails_nothing(engine, make_parts):
    def fail(*_):
        message = "Redis is away"
        raise redis.ConnectionError(message)

    parts, _ = make_parts(ring=fail)
    add_destination(engine, "a")
    ingest(parts, [chunk("text")])
    assert rows(engine, "SELECT count(*) FROM documents") == [(1,)]


def test_while_postgres_is_away_the_chunk_waits(make_postgres, make_parts):
    from app.storage.migrate import migrate

    server = make_postgres()
    migrate(server.url)
    engine = make_engine(server.url, application_name="test")
    parts, _ = make_parts(engine=engine)
    server.kill()
    thread = threading.Thread(target=ingest, args=(parts, [chunk("text")]))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    server.start()
    thread.join(20)
    assert rows(engine, "SELECT count(*) FROM documents") == [(1,)]
    engine.dispose()


def test_stopping_while_postgres_is_away_gives_the_chunk_back(make_postgres, make_parts):
    server = make_postgres()
    server.kill()
    engine = make_engine(server.url, application_name="test")
    parts, _ = make_parts(engine=engine)
    parts.stopping.set()
    with pytest.raises(Stopping):
        ingest(parts, [chunk("text")])
    engine.dispose()


def test_from_the_second_try_poison_is_rejected_alone(engine, make_parts, poisonous, isolated):
    parts, _ = make_parts(model=ModelHolder(poisonous), isolated=isolated)
    one = chunk("a", "raises", "b")
    with pytest.raises(ValueError, match="no"):
        ingest(parts, [one])
    ingest(parts, [one])
    assert rows(engine, "SELECT tries, stored, rejected FROM receipts") == [(2, 2, 1)]
    ((reason,),) = rows(engine, "SELECT reason FROM rejected_documents")
    assert "ValueError" in reason


def test_the_sweeper_rings_what_waits_and_takes_turns(engine, make_parts, monkeypatch):
    monkeypatch.setattr("worker.sweeper.SWEEP_EVERY_SECONDS", 600.0)  # both look within one turn
    parts, _ = make_parts()
    target = add_destination(engine, "a")
    ingest(parts, [chunk("text")])
    rung = []
    sweepers = [
        Sweeper(
            engine,
            lambda _, ids: rung.extend(ids),
            lambda: 0,
            lambda _: None,
            lambda: 0,
            attempts_retention_days=14,
        )
        for _ in range(2)
    ]
    for sweeper in sweepers:
        sweeper.look()
    assert rung == [target.id]
    days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'attempts'::regclass"
    assert rows(engine, days) == [(1 + 1 + attempt_days.DAYS_AHEAD,)]


def test_what_the_sweeper_does_not_understand_does_not_end_it(engine, make_parts):
    parts, _ = make_parts()
    target = add_destination(engine, "a")
    ingest(parts, [chunk("text")])
    rung = []

    def ring(_, ids):
        rung.append(ids)
        if len(rung) == 1:
            message = "a row of a newer version"
            raise ValueError(message)

    sweeper = Sweeper(
        engine, ring, lambda: 0, lambda _: None, lambda: 0, attempts_retention_days=14
    )
    sweeper.start()
    assert until(lambda: len(rung) >= 2, 10)
    sweeper.stop()
    assert rung[1] == [target.id]


def test_dead_letters_are_kept_once(engine):
    letter = DeadMessage(message_id="m", queue="q", body=b"x", reason="a\0b")
    for _ in range(2):
        with transaction(engine) as connection:
            dead_letters.store(connection, DEFAULT_TENANT, [letter])
    assert rows(engine, "SELECT count(*), min(reason) FROM dead_letters") == [(1, "a\\0b")]


def test_a_dead_child_is_started_again():
    supervisor = Supervisor({"ingest": 1}, dict(os.environ))
    (child,) = supervisor._children
    child.command = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    child.pause_seconds = 0.0
    clock = iter(range(1_000))
    supervisor._nursery.look_after(child, next(clock))
    first = child.process
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert until(lambda: supervisor._nursery.look_after(child, next(clock)) or child.process, 5)
    assert child.process.pid != first.pid
    assert supervisor._stop() == 0
    assert child.process.poll() is not None
