"""Retention: what is too old goes, piece by piece, beside everything else.

Part of the sweeper's tick. A tick removes for a short time and rests; a backlog takes many ticks,
so intake and delivery go on at their pace.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine

from app.domain.documents import DEFAULT_TENANT
from app.domain.retention import Kept, RetentionPolicy
from app.storage import purging, retention, retention_walks
from app.storage.engine import transaction
from app.storage.retention_walks import Cursor, Piece

LOG = structlog.get_logger(__name__)
REST_SECONDS = 60.0
"""From the end of a round to the next."""
LONG_REST_SECONDS = 3600.0
TABLES = frozenset({Kept.DOCUMENTS, Kept.TOMBSTONES, Kept.COUNTERS, Kept.RESULTS, Kept.STEPS})
"""Walked along keys that do not rise with time, so a round reads all of the table."""
BUSY_SECONDS = 0.1
"""Spent on removing in a tick while documents are coming in: a tenth of one core at most."""
IDLE_SECONDS = 0.5
IDLE_BEHIND = timedelta(seconds=1)

PURGES = "purges"
PURGES_REPEAT = timedelta(minutes=15)
"""Behind a purge, at least: longer than any request to a destination and its record take."""

T = TypeVar("T")
Step = Callable[[Connection, Cursor | None], Piece]
QueuedSince = Callable[[], datetime | None]


def seconds_beside(since: datetime | None) -> float:
    """Return how long a tick may take beside a queue whose oldest document is so old."""
    if since is not None and datetime.now(UTC) - since < IDLE_BEHIND:
        return IDLE_SECONDS
    return BUSY_SECONDS


class Retention:
    """Removes what is too old; one for the sweeper of a process."""

    def __init__(self, engine: Engine, policy: RetentionPolicy, queued_since: QueuedSince) -> None:
        """Keep the parts.

        Args:
            engine: the database.
            policy: the limits.
            queued_since: when the oldest document was accepted that is still queued, None when that
                cannot be told.
        """
        self._engine = engine
        self._policy = policy
        self._queued_since = queued_since
        self._names = [PURGES, *(kept.value for kept in policy.limited)]

    def tick(self, *, seconds: float | None = None) -> int:
        """Remove what is too old by the clock of the queue; return how many.

        Args:
            seconds: to spend at most; None: as many as ``seconds_beside`` the queue.
        """
        due = self._in_transaction(
            lambda connection: retention_walks.due(connection, DEFAULT_TENANT, self._names)
        )
        if not due:
            return 0
        since = self._queued_since()
        steps = self._steps(since)
        until = time.monotonic() + (seconds_beside(since) if seconds is None else seconds)
        removed = 0
        for name in due:
            removed += self._walk(name, steps.get(name), until)
            if time.monotonic() >= until:
                break
        return removed

    def _steps(self, since: datetime | None) -> dict[str, Step]:
        """Return what each walk does now; nothing while the age of the queue is unknown."""
        if since is None:
            LOG.info("retention.waits", reason="it cannot be told how old the queue is")
            return {}
        dead_since = self._in_transaction(
            lambda connection: retention.dead_since(connection, DEFAULT_TENANT)
        )
        steps = {
            kept.value: self._step(
                kept, self._policy.cutoff(kept, queued_since=since, dead_since=dead_since)
            )
            for kept in self._policy.limited
        }
        settled = since - PURGES_REPEAT

        def repeat_purges(connection: Connection, cursor: Cursor | None) -> Piece:
            return purging.repeat(connection, DEFAULT_TENANT, settled, cursor)

        return {**steps, PURGES: repeat_purges}

    def _step(self, kept: Kept, cutoff: datetime) -> Step:
        return lambda connection, cursor: retention.STEPS[kept](
            connection, DEFAULT_TENANT, cutoff, cursor
        )

    def _walk(self, name: str, step: Step | None, until: float) -> int:
        """Take a walk further until its round or the time is over; without a step it rests."""
        removed = 0
        while True:
            piece = self._in_transaction(
                lambda connection: retention_walks.advance(
                    connection,
                    DEFAULT_TENANT,
                    name,
                    step,
                    rest_seconds=LONG_REST_SECONDS if step and name in TABLES else REST_SECONDS,
                )
            )
            removed += piece.removed if piece else 0
            if piece is None or piece.cursor is None or time.monotonic() >= until:
                return removed

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        with transaction(self._engine, durable=False) as connection:
            return work(connection)
