"""Retention as the sweeper has it: in ticks, and not before it is known what may still come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from redis.exceptions import RedisError
from sqlalchemy import text

from app.domain.identifiers import id_made_at
from app.domain.retention import Kept, RetentionPolicy
from app.settings import Settings
from app.storage.engine import make_engine, transaction
from worker import retention
from worker.retention import Intake, Retention

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture
def engine(database_url):
    made = make_engine(database_url, application_name="test")
    yield made
    made.dispose()


@pytest.fixture
def run(engine):
    def execute(statement, **values):
        with transaction(engine) as connection:
            answer = connection.execute(text(statement), values)
            return [tuple(row) for row in answer] if answer.returns_rows else []

    return execute


@pytest.fixture
def receipts(run):
    """Make receipts so many days old; tell which ages are left."""
    made = {}

    def make(*ages):
        for days in ages:
            made[days] = id_made_at(int((NOW - days * DAY).timestamp() * 1000))
            run(
                "INSERT INTO receipts (tenant_id, chunk_id, tries, created_at)"
                " VALUES (1, :id, 1, :at)",
                id=made[days],
                at=NOW - days * DAY,
            )

    def left():
        kept = {row[0] for row in run("SELECT chunk_id FROM receipts")}
        return [days for days, chunk_id in made.items() if chunk_id in kept]

    make.left = left
    return make


def make_retention(engine, *, since=NOW, **days):
    policy = RetentionPolicy(days={Kept(name): count for name, count in days.items()})
    return Retention(engine, policy, lambda: since, Intake(lambda: 0))


def test_a_tick_removes_what_is_older_than_its_limit_and_then_rests(engine, receipts):
    receipts(1, 9, 11)
    retaining = make_retention(engine, receipts=10)
    assert retaining.tick(seconds=60) == 1
    assert receipts.left() == [1, 9]
    receipts(12)
    assert retaining.tick(seconds=60) == 0


def test_receipts_outlive_what_waits_in_the_queue(engine, receipts, run):
    receipts(9, 11, 14)
    retaining = make_retention(engine, since=NOW - 3 * DAY, receipts=10)
    retaining.tick(seconds=60)
    assert receipts.left() == [9, 11]
    run("UPDATE retention_walks SET next_at = now()")
    make_retention(engine, receipts=10).tick(seconds=60)
    assert receipts.left() == [9]


def test_nothing_goes_while_the_age_of_the_queue_is_unknown(engine, receipts, run):
    receipts(11)
    assert make_retention(engine, since=None, receipts=10).tick(seconds=60) == 0
    assert receipts.left() == [11]
    [(waits,)] = run("SELECT min(next_at) > now() FROM retention_walks")
    assert waits


def test_a_kind_without_a_limit_stays(engine, receipts):
    receipts(3_000)
    make_retention(engine, receipts=0, tombstones=1).tick(seconds=60)
    assert receipts.left() == [3_000]


def test_a_tick_ends_with_its_time_and_the_next_goes_on_with_another_kind(
    engine, receipts, run, monkeypatch
):
    monkeypatch.setattr("app.storage.retention.PIECE", 1)
    receipts(11, 12, 13)
    run(
        "INSERT INTO tombstones (tenant_id, document_id, version, seq, deleted_at)"
        " SELECT 1, gen_random_uuid(), 0, 1, now() - interval '99 days' FROM generate_series(1, 3)"
    )
    retaining = make_retention(engine, receipts=10, tombstones=10)
    removed = [retaining.tick(seconds=0) for _ in range(9)]
    assert max(removed) == 1
    assert (receipts.left(), run("SELECT 1 FROM tombstones")) == ([], [])


def test_purges_are_repeated_by_the_tick(engine, run):
    run(
        "INSERT INTO tombstones (tenant_id, document_id, version, seq, deleted_at, purged_seq,"
        " purging) VALUES (1, gen_random_uuid(), 0, 1, :at, 1, true)",
        at=NOW - retention.PURGES_REPEAT - DAY,
    )
    make_retention(engine, since=NOW - 2 * DAY).tick(seconds=60)
    assert run("SELECT purging FROM tombstones") == [(True,)]
    run("UPDATE retention_walks SET next_at = now()")
    make_retention(engine).tick(seconds=60)
    assert run("SELECT purging FROM tombstones") == [(False,)]


def test_the_intake_is_quiet_while_few_documents_come():
    clock, total = [100.0], [7]
    intake = Intake(lambda: total[0], lambda: clock[0])
    assert not intake.is_quiet()  # Nobody knows yet.
    for seconds, came, quiet in ((1, 0, True), (1, 5, True), (1, 6, False), (10, 50, True)):
        clock[0] += seconds
        total[0] += came
        assert intake.is_quiet() is quiet


def test_an_intake_that_cannot_be_told_is_not_quiet():
    def fail():
        raise RedisError

    intake = Intake(lambda: 7)
    intake.is_quiet()
    intake._accepted = fail
    assert not intake.is_quiet()
    intake._accepted = lambda: 7
    assert not intake.is_quiet()
    assert intake.is_quiet()


@pytest.mark.parametrize(
    ("behind_seconds", "quiet", "idle"), [(0, True, True), (0, False, False), (90, True, False)]
)
def test_a_tick_is_short_while_documents_come_or_wait(
    engine, receipts, monkeypatch, behind_seconds, quiet, idle
):
    receipts(11)
    monkeypatch.setattr(retention, "IDLE_SECONDS", -1.0)
    monkeypatch.setattr(retention, "BUSY_SECONDS", 60.0)
    monkeypatch.setattr(retention, "IDLE_BEHIND", timedelta(seconds=60))
    retaining = make_retention(
        engine, since=datetime.now(UTC) - timedelta(seconds=behind_seconds), receipts=10
    )
    monkeypatch.setattr(retaining._intake, "is_quiet", lambda: quiet)
    # Each walk gets one step in any case; PURGES goes first and takes all that there is of -1 s.
    assert retaining.tick() == (0 if idle else 1)


def test_every_kind_has_a_setting_and_a_step():
    assert set(Settings().retention.days) == set(Kept) == set(retention.retention.STEPS)
    assert Settings().retention.days[Kept.DOCUMENTS] == 0
    assert Settings(results_retention_days=5).retention.days[Kept.STEPS] == 5
