"""The partitions of ``attempts``: one per day (UTC), made ahead and dropped whole.

Deleting rows would cost as much as writing them. A day is attached, not created in place, which
would lock out everybody who writes attempts; only the default partition is locked for a moment.
What came into that one before its day was made is moved, unless it is much: then the day stays
there, and is deleted from there in pieces.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, text

DAYS_AHEAD = 3
MOST_MOVED = 20_000
PIECE = 20_000
LOCK_TIMEOUT = "1s"
"""Whoever waits for a lock on the table holds up all who come behind."""
ONE_AT_A_TIME = 0x41747470  # "Attp": key of the advisory lock

_PREFIX = "attempts_"


def make_ahead(connection: Connection, today: date, *, days: int = DAYS_AHEAD) -> list[date]:
    """Make the partitions of today and of the days to come; return the days that were made."""
    if not _alone(connection):
        return []
    known = set(existing(connection))
    wanted = [today + timedelta(days=number) for number in range(days + 1)]
    return [day for day in wanted if day not in known and _make(connection, day)]


def drop_old(connection: Connection, today: date, *, retention_days: int) -> list[date]:
    """Drop the days that are older than so many days; return those that were dropped.

    Older by the database's clock too: that of one worker, far ahead, would take all there are.
    """
    if not _alone(connection):
        return []
    known = connection.execute(text("SELECT (now() AT TIME ZONE 'UTC')::date")).scalar_one()
    oldest = min(today, known) - timedelta(days=retention_days)
    old = [day for day in existing(connection) if day < oldest]
    for day in old:
        connection.execute(text(f"DROP TABLE {_name(day)}"))
    connection.execute(
        text(
            "DELETE FROM attempts_default WHERE ctid = ANY(ARRAY("
            " SELECT ctid FROM attempts_default WHERE started_at < :oldest LIMIT :piece))"
        ),
        {"oldest": _midnight(oldest), "piece": PIECE},
    )
    return old


def existing(connection: Connection) -> list[date]:
    """Return the days that have a partition, in order."""
    names = connection.execute(
        text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'attempts'::regclass AND c.relname ~ '^attempts_[0-9]{8}$'"
            " ORDER BY 1"
        )
    ).scalars()
    return [
        datetime.strptime(name, f"{_PREFIX}%Y%m%d").replace(tzinfo=UTC).date() for name in names
    ]


def _alone(connection: Connection) -> bool:
    connection.execute(
        text("SELECT set_config('lock_timeout', :timeout, true)"), {"timeout": LOCK_TIMEOUT}
    )
    return bool(
        connection.execute(
            text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": ONE_AT_A_TIME}
        ).scalar_one()
    )


def _make(connection: Connection, day: date) -> bool:
    name, bounds = _name(day), {"since": _midnight(day), "until": _midnight(day + timedelta(1))}
    connection.execute(text("LOCK TABLE attempts_default IN ACCESS EXCLUSIVE MODE"))
    there = connection.execute(
        text(
            "SELECT count(*) FROM (SELECT 1 FROM attempts_default"
            " WHERE started_at >= :since AND started_at < :until LIMIT :most) few"
        ),
        {**bounds, "most": MOST_MOVED + 1},
    ).scalar_one()
    if there > MOST_MOVED:
        return False
    connection.execute(text(f"CREATE TABLE {name} (LIKE attempts INCLUDING ALL)"))
    if there:
        connection.execute(
            text(
                "WITH moved AS (DELETE FROM attempts_default"  # noqa: S608  (a date)
                " WHERE started_at >= :since AND started_at < :until RETURNING *)"
                f" INSERT INTO {name} SELECT * FROM moved"
            ),
            bounds,
        )
    connection.execute(
        text(
            f"ALTER TABLE attempts ATTACH PARTITION {name}"
            f" FOR VALUES FROM ('{bounds['since'].isoformat()}')"
            f" TO ('{bounds['until'].isoformat()}')"
        )
    )
    return True


def _name(day: date) -> str:
    return f"{_PREFIX}{day:%Y%m%d}"


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
