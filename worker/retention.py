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
from redis.exceptions import RedisError
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
QUIET_PER_SECOND = 5.0
"""Documents that come in while nobody minds. Workers that keep up leave no queue to tell by."""

PURGES = "purges"
PURGES_REPEAT = timedelta(minutes=15)
"""Behind a purge, at least: longer than any request to a destination and its record take."""

T = TypeVar("T")
Step = Callable[[Connection, Cursor | None], Piece]
QueuedSince = Callable[[], datetime | None]


class Intake:
    """How many documents come in, from a count of all that ever came."""

    def __init__(
        self, accepted: Callable[[], int], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._accepted = accepted
        self._now = now
        self._seen: tuple[float, int] | None = None

    def is_quiet(self) -> bool:
        """Tell whether few came since this was asked last; False when that cannot be told."""
        before = self._seen
        try:
            self._seen = now, total = self._now(), self._accepted()
        except RedisError as error:
            LOG.warning("retention.intake_unknown", reason=str(error))
            self._seen = None
            return False
        return before is not None and total - before[1] <= QUIET_PER_SECOND * (now - before[0])


class Retention:
    """Removes what is too old; one for the sweeper of a process."""

    def __init__(
        self,
        engine: Engine,
        policy: RetentionPolicy,
        queued_since: QueuedSince,
        intake: Intake,
    ) -> None:
        """Keep the parts.

        Args:
            engine: the database.
            policy: the limits.
            queued_since: when the oldest document was accepted that is still queued, None when that
                cannot be told.
            intake: beside which a tick takes less time.
        """
        self._engine = engine
        self._policy = policy
        self._queued_since = queued_since
        self._intake = intake
        self._names = [PURGES, *(kept.value for kept in policy.limited)]

    def tick(self, *, seconds: float | None = None) -> int:
        """Remove what is too old by the clock of the queue; return how many.

        Args:
            seconds: to spend at most; None: as many as the intake leaves.
        """
        due = self._in_transaction(
            lambda connection: retention_walks.due(connection, DEFAULT_TENANT, self._names)
        )
        if not due:
            return 0
        since = self._queued_since()
        steps = self._steps(since)
        if seconds is None:
            seconds = self._seconds_beside(since)
        until = time.monotonic() + seconds
        removed = 0
        for name in due:
            removed += self._walk(name, steps.get(name), until)
            if time.monotonic() >= until:
                break
        return removed

    def _seconds_beside(self, since: datetime | None) -> float:
        waits = since is None or datetime.now(UTC) - since >= IDLE_BEHIND
        return IDLE_SECONDS if self._intake.is_quiet() and not waits else BUSY_SECONDS

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
