"""What time it is: due times are compared with the database's clock, so they are made by it too."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import structlog

LOG = structlog.get_logger(__name__)

TOLD_SECONDS = 5.0
"""A difference that an operator should know of, or a change of one."""


def own_time() -> datetime:
    """Return what time it is for this machine."""
    return datetime.now(UTC)


class DatabaseClock:
    """The database's time of day, from any thread.

    It says so with every lease and renewal; in between, the monotonic clock goes on from there.
    Until it has, the time is the machine's own. That may be minutes off, or be set meanwhile, and a
    retry in five seconds would come at once, or in minutes.
    """

    def __init__(self) -> None:
        self._heard = own_time(), time.monotonic()
        self._told_seconds = 0.0

    def now(self) -> datetime:
        """Return the time of day."""
        at, heard_at = self._heard
        return at + timedelta(seconds=time.monotonic() - heard_at)

    def hear(self, at: datetime) -> None:
        """Take what the database said a moment ago."""
        self._heard = at.astimezone(UTC), time.monotonic()
        ahead_seconds = (own_time() - at).total_seconds()
        if abs(ahead_seconds - self._told_seconds) > TOLD_SECONDS:
            self._told_seconds = ahead_seconds
            # Signatures are of the machine's time, and receivers refuse one of five minutes ago.
            LOG.warning("clock.differs", ahead_seconds=round(ahead_seconds, 1))
