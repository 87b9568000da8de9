"""The database's time of day in a worker, and what an operator hears of a machine that differs."""

from datetime import UTC, datetime, timedelta

from structlog.testing import capture_logs

from worker.clock import DatabaseClock


def test_it_goes_on_from_what_the_database_said_last():
    clock = DatabaseClock()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=1)
    said = datetime(2026, 11, 21, 12, tzinfo=UTC)
    clock.hear(said)
    first, second = clock.now(), clock.now()
    assert said < first < second < said + timedelta(seconds=1)


def test_a_difference_is_told_once_and_again_when_it_changes():
    clock = DatabaseClock()
    with capture_logs() as logs:
        for off in (1, 600, 601, 0, 0):
            clock.hear(datetime.now(UTC) - timedelta(seconds=off))
    assert [(one["event"], round(one["ahead_seconds"])) for one in logs] == [
        ("clock.differs", 600),
        ("clock.differs", 0),
    ]
