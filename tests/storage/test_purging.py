"""Purging: one document goes everywhere, and what was accepted before it stays out."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from sqlalchemy import text

from app.domain.documents import DEFAULT_TENANT
from app.storage import counters, documents, operational_events, purging, steps
from app.storage.deliveries import DeliveryKey
from app.storage.engine import transaction
from app.storage.purging import Purged
from app.storage.steps import NewStep

NOW = datetime.now(UTC)
TABLES = (
    "documents",
    "deliveries",
    "attempts",
    "delivery_results",
    "delivery_steps",
    "rejected_documents",
    "unplanned_documents",
)


@pytest.fixture
def run(engine):
    def execute(statement, **values):
        with transaction(engine) as connection:
            answer = connection.execute(text(statement), values)
            return [tuple(row) for row in answer] if answer.returns_rows else []

    return execute


@pytest.fixture
def purge(engine):
    def go(document_id, accepted_until) -> Purged:
        with transaction(engine) as connection:
            return purging.purge(connection, DEFAULT_TENANT, document_id, accepted_until)

    return go


@pytest.fixture
def leave_traces(run):
    """Leave a row of each kind for the deliveries of a document."""

    def leave(document):
        key = "tenant_id, document_id, seq, destination_id, generation"
        of = " FROM deliveries WHERE document_id = :id"
        for at in (NOW, NOW - timedelta(days=1)):
            run(
                f"INSERT INTO attempts ({key}, number, started_at, kind, body)"
                f" SELECT {key}, 1, :at, 'success', 'an answer' {of}",
                id=document.id,
                at=at,
            )
        run(
            f"INSERT INTO delivery_results ({key}, value) SELECT {key}, '1' {of}",
            id=document.id,
        )
        run(
            "INSERT INTO rejected_documents (tenant_id, seq, document_id, chunk_id, reason, body)"
            " VALUES (1, 1, :id, gen_random_uuid(), 'r', 'a copy'),"
            " (1, 2, NULL, gen_random_uuid(), 'r', :body)",
            id=document.id,
            body=orjson.dumps({"id": str(document.id), "version": "bad"}),
        )
        run(
            "INSERT INTO unplanned_documents (tenant_id, document_id, seq, retry_at)"
            " VALUES (1, :id, :seq, now())",
            id=document.id,
            seq=document.seq,
        )

    return leave


@pytest.fixture
def store_one(make_document, store, make_target):
    """Store a document for new destinations with some keys; return it."""

    def make(*keys, document=None):
        document = document or make_document()
        store(document, to=tuple(make_target(key) for key in keys))
        return document

    return make


def counts(run):
    return {
        table: run(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608  (constants)
        for table in TABLES
    }


def test_a_document_goes_with_every_row_about_it_and_others_stay(
    engine, run, purge, leave_traces, store_one
):
    store_one("a", "b")
    before = counts(run)
    document = store_one("c", "d")
    leave_traces(document)
    purged = purge(document.id, document.seq)
    assert purged == Purged(documents=1, deliveries=2, attempts=4, rejected=2, dead_letters=0)
    assert counts(run) == before
    with transaction(engine) as connection:
        counted = counters.totals(connection, DEFAULT_TENANT)
    assert counted["documents.deleted"] == 1
    assert counted["deliveries.cancelled"] == counted["deliveries.removed.cancelled"] == 2
    assert purge(document.id, document.seq) == Purged()


def test_what_failed_with_it_is_told_without_its_words(engine, run, purge, store_one, make_target):
    watched, document, other = make_target("watched").id, store_one("a"), store_one("b")
    with transaction(engine) as connection:
        operational_events.emit_exhausted(
            connection,
            DEFAULT_TENANT,
            watched,
            [
                {
                    "document_id": str(one.id),
                    "seq": one.seq,
                    "generation": 0,
                    "version": 0,
                    "attempts": 3,
                    "status": None,
                    # As a collector's function raised it.
                    "error": "ValueError: invalid literal for int(): 'some text'",
                }
                for one in (document, other)
            ],
        )
    for _ in range(2):
        purge(document.id, document.seq)
    told = dict(run("SELECT data->>'document_id', data->>'error' FROM operational_events"))
    assert told[str(document.id)] == "its document was purged"
    assert "some text" in told[str(other.id)]


def test_what_was_accepted_before_stays_out_and_what_comes_later_is_new(
    run, purge, make_document, store
):
    document = make_document(version=3)
    store(document)
    queued = make_document(id=document.id, version=7)
    purge(document.id, queued.seq)
    store(queued)
    assert run("SELECT 1 FROM documents") == []
    # As behind a deletion, an older version is no news.
    store(make_document(id=document.id, version=2))
    assert run("SELECT 1 FROM documents") == []
    later = make_document(id=document.id, version=4)
    store(later)
    assert run("SELECT version FROM documents") == [(4,)]


def test_a_document_that_is_only_queued_is_kept_out(engine, run, purge, make_document, store):
    queued = make_document(version=9)
    assert purge(queued.id, queued.seq) == Purged()
    with transaction(engine) as connection:
        assert documents.upsert(connection, [queued]) == []
    store(queued)
    assert run("SELECT 1 FROM documents") == []


def test_documents_that_collectors_called_for_go_with_it(
    engine, run, purge, make_document, store, make_target
):
    caller, called = make_target("caller"), make_target("called")
    document = make_document()
    store(document, to=(caller,))
    parent = DeliveryKey(DEFAULT_TENANT, document.id, document.seq, caller.id, 0)
    with transaction(engine) as connection:
        begun = steps.begin(connection, parent, "caller", [NewStep(1, called.key, "derived")])
        child = begun.steps[1].child
        deeper = steps.begin(connection, child, "called", [NewStep(1, caller.key, "of that")])
    last = max(one.child.seq for one in (begun.steps[1], deeper.steps[1]))
    assert purge(document.id, last).documents == 3
    assert set(counts(run).values()) == {0}


def test_who_called_for_a_purged_document_hears_of_it(
    engine, run, purge, make_document, store, make_target
):
    caller, called = make_target("caller"), make_target("called")
    document = make_document()
    store(document, to=(caller,))
    parent = DeliveryKey(DEFAULT_TENANT, document.id, document.seq, caller.id, 0)
    with transaction(engine) as connection:
        begun = steps.begin(connection, parent, "caller", [NewStep(1, called.key, "derived")])
    step = begun.steps[1]
    purge(step.child.document_id, step.child.seq)
    assert run("SELECT state, error FROM delivery_steps") == [("failed", "its document was purged")]
    # One that waits in memory asks for the delivery.
    with transaction(engine) as connection:
        [ended] = steps.settle(connection, DEFAULT_TENANT, [step])
    assert (ended.state, ended.error) == ("failed", "its delivery was purged")


def test_it_is_cut_out_of_dead_letters_and_its_place_stays(run, purge, make_document):
    first, second = make_document("private"), make_document("public")
    sent = [{"id": str(one.id), "content": one.content} for one in (first, second)]
    body = orjson.dumps(
        {
            "queue_name": "ingest",
            "kwargs": {"documents": sent},
            # As what went wrong may quote it.
            "options": {"retries": 3, "traceback": "RaiseException: no 'private' here\n"},
        }
    )
    for message_id, content in (("m1", body), ("m2", b"no JSON, but " + str(first.id).encode())):
        run(
            "INSERT INTO dead_letters (tenant_id, message_id, queue, body, reason)"
            " VALUES (1, :id, 'ingest', :body, 'RaiseException: no ''private'' here')",
            id=message_id,
            body=content,
        )
    assert purge(first.id, 1).dead_letters == 1
    assert purge(first.id, 1).dead_letters == 0
    [(left, reason)] = run("SELECT body, reason FROM dead_letters WHERE message_id = 'm1'")
    assert b"private" not in bytes(left)
    assert reason == "RaiseException"
    kept = orjson.loads(bytes(left))["kwargs"]["documents"]
    assert [one["id"] for one in kept] == [one["id"] for one in sent]
    assert kept[1] == sent[1]


def test_a_purge_is_repeated_until_nothing_can_come_any_more(
    engine, run, purge, leave_traces, store_one
):
    document = store_one("a")
    purge(document.id, document.seq)
    # An upsert that was under way, and an answer to a request that was.
    run("DELETE FROM tombstones")
    store_one("b", document=document)
    leave_traces(document)
    run(
        "INSERT INTO tombstones (tenant_id, document_id, version, seq, purged_seq, purging)"
        " VALUES (1, :id, 0, :seq, :seq, true)",
        id=document.id,
        seq=document.seq,
    )

    def repeat(settled):
        cursor, removed = None, 0
        while True:
            with transaction(engine) as connection:
                piece = purging.repeat(connection, DEFAULT_TENANT, settled, cursor)
            removed, cursor = removed + piece.removed, piece.cursor
            if cursor is None:
                return removed

    assert repeat(NOW - timedelta(minutes=1)) > 0
    assert set(counts(run).values()) == {0}
    assert run("SELECT purging FROM tombstones") == [(True,)]
    assert repeat(datetime.now(UTC) + timedelta(minutes=1)) == 0
    assert run("SELECT purging FROM tombstones") == [(False,)]


def test_what_a_function_calls_for_behind_the_purge_goes_with_a_repeat(
    engine, run, purge, make_document, store, make_target
):
    caller, called = make_target("caller"), make_target("called")
    document = make_document()
    store(document, to=(caller,))
    parent = DeliveryKey(DEFAULT_TENANT, document.id, document.seq, caller.id, 0)
    purge(document.id, document.seq)
    with transaction(engine) as connection:
        begun = steps.begin(connection, parent, "caller", [NewStep(1, called.key, "derived")])
        steps.begin(connection, begun.steps[1].child, "called", [NewStep(1, caller.key, "deeper")])
    newer = make_document(id=document.id, seq=document.seq + 10)
    store(newer, to=(caller,))
    kept = DeliveryKey(DEFAULT_TENANT, newer.id, newer.seq, caller.id, 0)
    with transaction(engine) as connection:
        steps.begin(connection, kept, "caller", [NewStep(1, called.key, "of the newer one")])
    with transaction(engine) as connection:
        purging.repeat(connection, DEFAULT_TENANT, NOW, None)
    left = run("SELECT content FROM documents ORDER BY seq")
    assert left == [(newer.content,), ("of the newer one",)]
    assert run("SELECT count(*) FROM deliveries") == [(2,)]


def test_repeats_leave_a_newer_document_alone(engine, run, purge, make_document, store_one):
    old = store_one()
    purge(old.id, old.seq)
    store_one("a", document=make_document(id=old.id))
    with transaction(engine) as connection:
        purging.repeat(connection, DEFAULT_TENANT, NOW, None)
    assert len(run("SELECT 1 FROM documents")) == len(run("SELECT 1 FROM deliveries")) == 1


def test_a_purge_that_an_upsert_waits_for_buries_it(engine, purge, make_document, store):
    document = make_document()
    store(document)
    purge(document.id, document.seq + 10)
    newer = make_document(id=document.id, seq=document.seq + 5, version=8)
    with transaction(engine) as connection:
        connection.execute(text("DELETE FROM tombstones"))
        assert documents.upsert(connection, [newer])
        connection.execute(
            text(
                "INSERT INTO tombstones (tenant_id, document_id, version, seq, purged_seq)"
                " VALUES (1, :id, 0, :seq, :until)"
            ),
            {"id": document.id, "seq": document.seq, "until": document.seq + 10},
        )
        assert documents.bury(connection, DEFAULT_TENANT, [newer.id]) == {newer.id}


def test_an_unknown_id_is_no_error(run, purge):
    assert purge(uuid.uuid4(), 5) == Purged()
    assert len(run("SELECT 1 FROM tombstones")) == 1
