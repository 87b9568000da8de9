"""Attempts: every one a row, in the partition of its day."""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.domain.attempts import Trace
from app.domain.deliveries import AttemptRecord, DeliveryState, OutcomeKind
from app.domain.delivery_ids import DeliveryPlace
from app.domain.documents import DEFAULT_TENANT
from app.domain.operational_events import OperationalEventType
from app.domain.retention import Kept
from app.storage import attempt_days, attempts, operational_events
from app.storage.deliveries import DeliveryKey, DeliveryResult
from app.storage.engine import transaction
from app.storage.retention import STEPS

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TODAY = NOW.date()
PLACE = DeliveryPlace(uuid.uuid4(), 7, uuid.uuid4(), 0)


def result(number=1, *, at=NOW, place=PLACE, **fields):
    trace = Trace(
        reused=True,
        wait_ms=1.5,
        rest_ms=0.25,
        total_ms=1.75,
        headers='{"content-type": "text/plain", "x": "a\\\\b"}',
        body="no\tluck\r\n\\N \\.\n",
    )
    return DeliveryResult(
        key=DeliveryKey(DEFAULT_TENANT, *place),
        state=DeliveryState.PENDING,
        attempts=number,
        due_at=None,
        status=fields.get("status", 503),
        error=fields.get("error", "HTTP 503"),
        finished_at=at,
        attempt=AttemptRecord(
            started_at=at, kind=OutcomeKind.TEMPORARY, trace=fields.get("trace", trace)
        ),
    )


def write(engine, *results):
    with transaction(engine) as connection:
        attempts.write(connection, results)


def kept(engine, place=PLACE):
    with transaction(engine) as connection:
        return attempts.of_delivery(connection, DEFAULT_TENANT, place)


def days(engine, today=TODAY, **options):
    with transaction(engine) as connection:
        return attempt_days.make_ahead(connection, today, **options)


def drop(engine, today, retention_days=14):
    with transaction(engine) as connection:
        return attempt_days.drop_old(connection, today, retention_days=retention_days)


def where(engine):
    """How many rows which partition has."""
    with transaction(engine) as connection:
        rows = connection.execute(text("SELECT tableoid::regclass::text FROM attempts")).scalars()
        return Counter(rows)


def test_an_attempt_is_kept_in_full(engine):
    write(engine, result(1), result(2, at=NOW + timedelta(minutes=5), trace=None, status=None))
    first, second = kept(engine)
    assert (first.number, first.started_at, first.kind, first.status, first.error) == (
        1,
        NOW,
        "temporary",
        503,
        "HTTP 503",
    )
    assert (first.reused, first.name_ms, first.wait_ms, first.rest_ms, first.total_ms) == (
        True,
        None,
        1.5,
        0.25,
        1.75,
    )
    assert first.headers == {"content-type": "text/plain", "x": "a\\b"}
    assert first.body == "no\tluck\r\n\\N \\.\n"
    assert (second.number, second.status, second.headers, second.total_ms) == (2, None, None, None)
    assert kept(engine, PLACE._replace(generation=1)) == []


def test_writing_again_changes_nothing_and_a_repeated_number_is_another_attempt(engine):
    again = [result(), result(at=NOW + timedelta(seconds=1))]
    write(engine, result())
    with pytest.raises(IntegrityError):
        write(engine, *again)
    with transaction(engine) as connection:
        unkept = attempts.without_kept(connection, again)
    assert [one.attempt is None for one in unkept] == [True, False]
    write(engine, *unkept)
    assert [one.number for one in kept(engine)] == [1, 1]


def test_a_result_without_an_attempt_writes_nothing(engine):
    one = result()
    write(
        engine,
        DeliveryResult(
            key=one.key,
            state=DeliveryState.SUPERSEDED,
            attempts=0,
            due_at=None,
            status=None,
            error=None,
            finished_at=NOW,
        ),
    )
    assert kept(engine) == []


def test_each_day_has_its_partition_and_what_fits_none_is_not_refused(engine):
    assert days(engine) == [TODAY + timedelta(n) for n in range(4)]
    assert days(engine) == []
    assert days(engine, TODAY + timedelta(1)) == [TODAY + timedelta(4)]
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    write(
        engine,
        result(1, at=midnight - timedelta(microseconds=1)),
        result(2, at=midnight),
        result(3, at=NOW - timedelta(days=1)),
    )
    assert where(engine) == {
        "attempts_20261121": 1,
        "attempts_20261122": 1,
        "attempts_default": 1,
    }
    assert len(kept(engine)) == 3


def test_what_came_before_its_day_was_made_moves_there(engine):
    write(engine, result(1), result(2, at=NOW - timedelta(days=1)))
    assert TODAY in days(engine)
    assert where(engine) == {"attempts_20261121": 1, "attempts_default": 1}
    assert len(kept(engine)) == 2


def test_a_day_that_is_too_much_to_move_stays_where_it_is(engine, monkeypatch):
    monkeypatch.setattr(attempt_days, "MOST_MOVED", 1)
    write(engine, result(1), result(2, at=NOW + timedelta(seconds=1)))
    assert TODAY not in days(engine)
    assert where(engine) == {"attempts_default": 2}


def test_old_days_are_dropped_whole_and_the_rest_is_deleted(engine):
    now = datetime(2025, 5, 5, 12, tzinfo=UTC)
    today, kept_days = now.date(), 14
    days(engine, today, days=0)
    write(engine, result(1, at=now), result(2, at=now - timedelta(days=1)))
    assert drop(engine, today + timedelta(kept_days)) == []
    assert where(engine) == {"attempts_20250505": 1}
    write(engine, result(2, at=now - timedelta(days=1)))
    assert drop(engine, today + timedelta(kept_days + 1)) == [today]
    assert kept(engine) == []


def test_a_worker_whose_clock_is_far_ahead_drops_nothing(engine):
    now = datetime.now(UTC)
    days(engine, now.date())
    write(engine, result(1, at=now), result(2, at=now - timedelta(days=5)))
    assert drop(engine, now.date() + timedelta(400)) == []
    assert len(kept(engine)) == 2


def test_making_days_blocks_nobody_who_writes(engine):
    days(engine)
    with transaction(engine) as writing:
        attempts.write(writing, [result(2)])
        assert days(engine, TODAY + timedelta(1)) == [TODAY + timedelta(4)]


def test_events_go_unless_somebody_has_yet_to_get_them(engine, make_target):
    subject = make_target("subject")
    with transaction(engine) as connection:
        for n in range(2):
            operational_events.emit(
                connection,
                DEFAULT_TENANT,
                OperationalEventType.DESTINATION_FAILING,
                subject.id,
                {"n": n},
            )
            if n == 0:
                make_target("subscriber", events=["*"])
        # The second one waits for the subscriber.
        tomorrow = datetime.now(UTC) + timedelta(1)
    with transaction(engine) as connection:
        dropped = STEPS[Kept.EVENTS](connection, DEFAULT_TENANT, tomorrow, None).removed
        left = operational_events.list_page(connection, DEFAULT_TENANT, limit=10)
    assert (dropped, [one.data["n"] for one in left]) == (1, [1])
