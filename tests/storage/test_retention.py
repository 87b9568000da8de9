"""Retention: what is too old goes in pieces, what somebody may still need stays, sums add up."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from app.domain.documents import DEFAULT_TENANT
from app.domain.identifiers import first_id_of, id_made_at
from app.domain.retention import Kept, RetentionPolicy
from app.storage import (
    counters,
    documents,
    replays,
    retention,
    retention_counters,
    retention_documents,
    retention_walks,
    steps,
)
from app.storage.deliveries import DeliveryKey
from app.storage.engine import transaction
from app.storage.retention import STEPS
from app.storage.steps import NewStep

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=100)
CUTOFF = NOW - timedelta(days=30)


def seq_of(at):
    return int(at.timestamp() * 1_000_000)


@pytest.fixture
def run(engine):
    """Execute SQL and return its rows, if it has any."""

    def execute(statement, **values):
        with transaction(engine) as connection:
            answer = connection.execute(text(statement), values)
            return [tuple(row) for row in answer] if answer.returns_rows else []

    return execute


@pytest.fixture
def remove(engine):
    """Go one round; return how many rows it removed."""

    def go(kept: Kept, cutoff=CUTOFF) -> int:
        removed, cursor = 0, None
        for _ in range(100):
            with transaction(engine) as connection:
                piece = STEPS[kept](connection, DEFAULT_TENANT, cutoff, cursor)
            removed, cursor = removed + piece.removed, piece.cursor
            if cursor is None:
                return removed
        raise AssertionError("a round has no end")

    return go


@pytest.fixture
def store_old(make_document, store):
    """Store documents that were accepted long ago; return them."""

    def make(count=1, *, to=(), at=LONG_AGO, **fields):
        made = [make_document(seq=seq_of(at) + number, **fields) for number in range(count)]
        store(*made, to=to)
        return made

    return make


@pytest.fixture
def end(run):
    """End all open deliveries, or those to one destination, at some time."""

    def set_state(state="delivered", at=LONG_AGO, destination=None):
        run(
            "UPDATE deliveries SET state = :state, ended_at = :at WHERE state = 'pending'"
            " AND (CAST(:id AS uuid) IS NULL OR destination_id = :id)",
            state=state,
            at=at,
            id=destination and destination.id,
        )

    return set_state


@pytest.fixture
def old(engine, run, remove, store_old, end):
    """All of the above, for tests that use most of it."""
    return SimpleNamespace(engine=engine, run=run, remove=remove, store=store_old, end=end)


def stored(run):
    return {row[0] for row in run("SELECT id FROM documents")}


def totals(engine):
    with transaction(engine) as connection:
        return counters.totals(connection, DEFAULT_TENANT)


def test_old_documents_go_with_their_ended_deliveries_and_are_counted_out(
    old, make_document, store, make_target
):
    a, b = make_target("a"), make_target("b")
    old.store(3, to=(a, b))
    old.end(destination=a)
    old.end("failed", destination=b)
    young = make_document(seq=seq_of(NOW))
    store(young, to=(a,))
    assert old.remove(Kept.DOCUMENTS) == 3
    assert stored(old.run) == {young.id}
    assert old.run("SELECT document_id FROM deliveries") == [(young.id,)]
    counted = totals(old.engine)
    assert counted["documents.stored"] - counted["documents.removed"] == 1
    assert counted["deliveries.removed.delivered"] == 3
    assert counted["deliveries.removed.failed"] == 3


def test_a_document_stays_while_one_of_its_deliveries_is_open(
    run, remove, store_old, end, make_target
):
    a, b = make_target("a"), make_target("b")
    [waiting] = store_old(to=(a, b))
    end(destination=a)
    for state in ("pending", "held"):
        run("UPDATE deliveries SET state = :state WHERE destination_id = :b", state=state, b=b.id)
        assert remove(Kept.DOCUMENTS) == 0
    assert stored(run) == {waiting.id}
    assert len(run("SELECT 1 FROM deliveries")) == 2
    run("UPDATE deliveries SET state = 'failed', ended_at = now()")
    assert remove(Kept.DOCUMENTS) == 1


def test_a_document_that_is_not_routed_or_waited_for_stays(run, remove, store_old):
    unrouted, called_for = store_old(2)
    run(
        "INSERT INTO unplanned_documents (tenant_id, document_id, seq, retry_at)"
        " VALUES (1, :id, 1, now())",
        id=unrouted.id,
    )
    run(
        "INSERT INTO delivery_steps (tenant_id, document_id, seq, destination_id, generation,"
        " number, key, child_document_id, child_seq, child_destination_id, state)"
        " VALUES (1, gen_random_uuid(), 1, gen_random_uuid(), 0, 1, 'k', :id, 2,"
        " gen_random_uuid(), 'open')",
        id=called_for.id,
    )
    assert remove(Kept.DOCUMENTS) == 0
    run("DELETE FROM unplanned_documents")
    assert remove(Kept.DOCUMENTS) == 1
    run("UPDATE delivery_steps SET state = 'done'")
    assert remove(Kept.DOCUMENTS) == 1


def test_documents_go_in_pieces_however_many_deliveries_they_have(
    run, remove, store_old, end, make_target, monkeypatch
):
    monkeypatch.setattr(retention_documents, "LOOKED_AT", 5)
    monkeypatch.setattr(retention_documents, "REMOVED", 3)
    monkeypatch.setattr(retention_documents, "DELIVERIES", 4)
    store_old(11, to=tuple(make_target(name) for name in "abcdef"))
    end()
    assert remove(Kept.DOCUMENTS) == 11
    assert run("SELECT 1 FROM deliveries") == []


def test_ended_deliveries_go_by_their_end_and_leave_the_document(old, make_target, monkeypatch):
    monkeypatch.setattr(retention, "PIECE", 3)
    a, b, c = (make_target(name) for name in "abc")
    made = old.store(5, to=(a, b, c))
    old.end(destination=a)
    old.end(at=NOW, destination=b)
    old.run(
        "INSERT INTO delivery_results (tenant_id, document_id, seq, destination_id, generation,"
        " value) SELECT 1, document_id, seq, destination_id, 0, '1' FROM deliveries"
    )
    old.run(
        "INSERT INTO delivery_steps (tenant_id, document_id, seq, destination_id, generation,"
        " number, key, child_document_id, child_seq, child_destination_id, state)"
        " SELECT 1, document_id, seq, destination_id, 0, n, 'k', gen_random_uuid(), 1,"
        "  gen_random_uuid(), 'done' FROM deliveries, generate_series(1, 2) n"
    )
    assert old.remove(Kept.DELIVERIES) == 5
    assert stored(old.run) == {one.id for one in made}
    left = [
        old.run("SELECT destination_id, count(*) FROM deliveries GROUP BY 1"),
        old.run("SELECT destination_id, count(*) FROM delivery_results GROUP BY 1"),
        old.run("SELECT destination_id, count(*) / 2 FROM delivery_steps GROUP BY 1"),
    ]
    assert [sorted(one) for one in left] == [sorted([(b.id, 5), (c.id, 5)])] * 3
    assert totals(old.engine)["deliveries.removed.delivered"] == 5


def test_what_collectors_returned_may_go_before_its_delivery(
    run, remove, store_old, end, make_target, monkeypatch
):
    monkeypatch.setattr(retention, "PIECE", 2)
    a, b = make_target("a"), make_target("b")
    store_old(3, to=(a, b))
    end(destination=a)
    run(
        "INSERT INTO delivery_results (tenant_id, document_id, seq, destination_id, generation,"
        " value) SELECT 1, document_id, seq, destination_id, 0, '1' FROM deliveries"
    )
    assert remove(Kept.RESULTS) == 3
    assert {row[0] for row in run("SELECT destination_id FROM delivery_results")} == {b.id}
    assert len(run("SELECT 1 FROM deliveries")) == 6


def test_what_a_collector_returned_stays_for_a_function_that_has_not_read_it(
    engine, run, remove, store_old, end, make_target
):
    caller, called = make_target("caller"), make_target("called")
    [document] = store_old(to=(caller,))
    parent = DeliveryKey(DEFAULT_TENANT, document.id, document.seq, caller.id, 0)
    with transaction(engine) as connection:
        begun = steps.begin(connection, parent, "caller", [NewStep(1, called.key, "derived")])
    end(destination=called)
    run(
        "INSERT INTO delivery_results (tenant_id, document_id, seq, destination_id, generation,"
        " value) SELECT 1, document_id, seq, destination_id, 0, '17' FROM deliveries"
        " WHERE destination_id = :id",
        id=called.id,
    )
    assert remove(Kept.RESULTS) == 0
    with transaction(engine) as connection:
        [ended] = steps.settle(connection, DEFAULT_TENANT, [begun.steps[1]])
    assert (ended.state, ended.value) == ("done", "17")
    assert remove(Kept.RESULTS) == 1
    assert remove(Kept.STEPS) == 0


def test_receipts_and_rejected_documents_go_from_the_beginning(engine, run, remove, monkeypatch):
    monkeypatch.setattr(retention, "PIECE", 2)
    for at in (LONG_AGO, LONG_AGO, LONG_AGO, NOW):
        run(
            "INSERT INTO receipts (tenant_id, chunk_id, tries, created_at) VALUES (1, :id, 1, :at)",
            id=id_made_at(int(at.timestamp() * 1000)),
            at=at,
        )
        run(
            "INSERT INTO rejected_documents (tenant_id, seq, chunk_id, reason, body, rejected_at)"
            " SELECT 1, coalesce(max(seq), :seq) + 1, gen_random_uuid(), 'r', '', :at"
            " FROM rejected_documents",
            seq=seq_of(at),
            at=at,
        )
    assert remove(Kept.RECEIPTS) == 3
    assert remove(Kept.REJECTED) == 3
    assert len(run("SELECT 1 FROM receipts")) == len(run("SELECT 1 FROM rejected_documents")) == 1
    assert totals(engine)["rejected.removed"] == 3


def test_tombstones_go_by_the_time_of_the_deletion(run, remove, monkeypatch):
    monkeypatch.setattr(retention, "PIECE", 2)
    for at in (LONG_AGO, NOW, LONG_AGO, NOW, LONG_AGO):
        run(
            "INSERT INTO tombstones (tenant_id, document_id, version, seq, deleted_at)"
            " VALUES (1, gen_random_uuid(), 0, 1, :at)",
            at=at,
        )
    assert remove(Kept.TOMBSTONES) == 3
    assert len(run("SELECT 1 FROM tombstones")) == 2


@pytest.mark.parametrize(("stage", "removed"), [("ingest", 0), ("classifier", 0), ("router", 1)])
def test_a_tombstone_stays_while_somebody_may_try_a_version_again(run, remove, stage, removed):
    document_id = uuid.uuid4()
    run(
        "INSERT INTO tombstones (tenant_id, document_id, version, seq, deleted_at)"
        " VALUES (1, :id, 0, 2, :at)",
        id=document_id,
        at=LONG_AGO,
    )
    run(
        "INSERT INTO rejected_documents"
        " (tenant_id, seq, document_id, chunk_id, reason, body, stage) VALUES"
        " (1, 1, :id, gen_random_uuid(), 'r', 'a copy', :stage)",
        id=document_id,
        stage=stage,
    )
    assert remove(Kept.TOMBSTONES) == removed


def test_the_counts_of_a_batch_stay_while_a_delivery_of_it_is_open(run, remove, monkeypatch):
    monkeypatch.setattr(retention, "PIECE", 4)
    ended, waiting = [], []
    for number in range(6):
        batch = uuid.UUID(int=first_id_of(LONG_AGO).int + number)
        (waiting if number == 2 else ended).append(batch)
        delivered = 9 if number == 2 else 10
        for name, amount in (("stored", 5), ("planned", 10), ("delivered", delivered)):
            run(
                "INSERT INTO batch_counts (tenant_id, batch_id, name, amount)"
                " VALUES (1, :batch, :name, :amount)",
                batch=batch,
                name=name,
                amount=amount,
            )
    assert remove(Kept.BATCHES) == 3 * len(ended)
    assert {row[0] for row in run("SELECT batch_id FROM batch_counts")} == set(waiting)


def test_finished_replays_go(run, remove):
    for at, finished in ((LONG_AGO, LONG_AGO), (LONG_AGO, None), (NOW, NOW)):
        run(
            "INSERT INTO replays (tenant_id, id, filter, finished_at) VALUES (1, :id, '{}', :at)",
            id=id_made_at(int(at.timestamp() * 1000)),
            at=finished,
        )
    assert remove(Kept.REPLAYS) == 1


def test_hours_of_counters_become_days_and_every_sum_stays(engine, run, remove, monkeypatch):
    monkeypatch.setattr(retention_counters, "GROUPS", 2)
    monkeypatch.setattr(retention_counters, "HOURS", 5)
    day = LONG_AGO.replace(hour=0, minute=0, second=0, microsecond=0)
    for name in ("documents.stored", "deliveries.planned", "deliveries.delivered"):
        for hour in range(30):
            run(
                "INSERT INTO counters VALUES (1, :name, :nobody, :hour, 1), (1, :name, :other,"
                " :hour, 2)",
                name=name,
                nobody=counters.NO_DESTINATION,
                other=uuid.UUID(int=7),
                hour=day + timedelta(hours=hour),
            )
    before = totals(engine)
    remove(Kept.COUNTERS)
    assert totals(engine) == before
    left = run("SELECT name, hour, sum(amount) FROM counters GROUP BY 1, 2 ORDER BY 1, 2")
    assert [row[1:] for row in left] == [(day, 24 * 3), (day + timedelta(1), 6 * 3)] * 3
    assert remove(Kept.COUNTERS) == 0


def test_the_counters_of_the_day_of_the_limit_stay_by_the_hour(run, remove):
    day = CUTOFF.replace(hour=0, minute=0, second=0, microsecond=0)
    for hour in (1, 2):
        run(
            "INSERT INTO counters VALUES (1, 'x', gen_random_uuid(), :hour, 1)",
            hour=day + timedelta(hours=hour),
        )
    assert remove(Kept.COUNTERS) == 0


def test_age_is_counted_from_the_head_of_the_queue_and_guards_wait_for_dead_letters():
    policy = RetentionPolicy(days={Kept.DOCUMENTS: 30, Kept.RECEIPTS: 10, Kept.TOMBSTONES: 0})
    assert policy.limited == [Kept.DOCUMENTS, Kept.RECEIPTS]
    queued, dead = NOW - timedelta(days=3), NOW - timedelta(days=50)
    assert {
        kept: policy.cutoff(kept, queued_since=queued, dead_since=dead) for kept in policy.limited
    } == {
        Kept.DOCUMENTS: NOW - timedelta(days=33),
        Kept.RECEIPTS: NOW - timedelta(days=60),
    }


def test_a_dead_letter_says_how_old_it_is(engine, run):
    with transaction(engine) as connection:
        assert retention.dead_since(connection, DEFAULT_TENANT) is None
    at = datetime.fromtimestamp(1_700_000_000, UTC)
    insert = (
        "INSERT INTO dead_letters (tenant_id, message_id, queue, body) VALUES (1, :id, 'q', '')"
    )
    run(insert, id=str(id_made_at(1_700_000_000_000)))
    with transaction(engine) as connection:
        assert retention.dead_since(connection, DEFAULT_TENANT) == at
    run("DELETE FROM dead_letters")
    run(insert, id="by hand")
    with transaction(engine) as connection:
        assert retention.dead_since(connection, DEFAULT_TENANT).year < 2000


def test_a_walk_goes_on_where_it_was_one_at_a_time_and_rests_behind_its_end(engine):
    seen = []

    def step(_, cursor):
        seen.append(cursor)
        return retention_walks.Piece(2, None if cursor else [1, "x"])

    def advance(connection):
        return retention_walks.advance(connection, DEFAULT_TENANT, "w", step, rest_seconds=60)

    with transaction(engine) as connection:
        assert retention_walks.due(connection, DEFAULT_TENANT, ["w"]) == ["w"]
    with transaction(engine) as first:
        assert advance(first).cursor == [1, "x"]
        with transaction(engine) as second:
            assert advance(second) is None
    with transaction(engine) as connection:
        assert advance(connection) == retention_walks.Piece(2, None)
    with transaction(engine) as connection:
        assert advance(connection) is None
        assert retention_walks.due(connection, DEFAULT_TENANT, ["w"]) == []
        removed = connection.execute(text("SELECT removed FROM retention_walks")).scalar_one()
    assert (seen, removed) == ([None, [1, "x"]], 4)


def test_a_replay_and_retention_leave_no_open_delivery_without_its_document(
    engine, run, store_old, end, make_target
):
    store_old(1, to=(make_target("a"),))
    end("failed")
    [place] = run("SELECT document_id, seq, destination_id FROM deliveries")
    place = replays.DeliveryPlace(*place, 0)
    with transaction(engine) as replaying:
        assert len(replays.plan(replaying, DEFAULT_TENANT, [place])) == 1
        # Its document is locked: retention passes it over.
        with transaction(engine) as connection:
            piece = STEPS[Kept.DOCUMENTS](connection, DEFAULT_TENANT, CUTOFF, None)
        assert piece.removed == 0
    end("failed")
    with transaction(engine) as connection:
        documents.delete(connection, DEFAULT_TENANT, place.document_id)
    with transaction(engine) as connection:
        assert replays.plan(connection, DEFAULT_TENANT, [place]) == []
