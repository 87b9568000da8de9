"""The sweeper: what doorbells missed, crashes left and counters gathered, once a second.

Runs in a thread of every worker process; one atomic update in Postgres decides whose turn it is,
so ten workers sweep as often as one.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

import structlog
from redis import RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from app.domain.documents import DEFAULT_TENANT
from app.domain.errors import DatabaseUnavailable
from app.storage import (
    attempt_days,
    batches,
    counters,
    deliveries,
    holds,
    replays,
    ticks,
)
from app.storage.engine import transaction
from worker.planning import Ring

T = TypeVar("T")
LOG = structlog.get_logger(__name__)
LOOK_EVERY_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 4.0
"""Behind failures: a database that is away for a day need not be told of eight times a second."""
SWEEP_EVERY_SECONDS = 1.0
FOLD_EVERY_SECONDS = 5.0
DEAD_LETTERS_EVERY_SECONDS = 5.0
LONGEST_MOVE_SECONDS = 0.5
RETAIN_EVERY_SECONDS = 60.0
REMOVE_EVERY_SECONDS = 1.0
REPLAY_EVERY_SECONDS = 1.0
REPLAY_SECONDS = 0.5
"""Spent on replays at a time; the rest of the sweep waits meanwhile."""


class Sweeper:
    """Does the periodic work whenever it is this process's turn."""

    def __init__(  # noqa: PLR0913  (a chore each)
        self,
        engine: Engine,
        ring: Ring,
        move_dead_letters: Callable[[], int],
        forget_batches: Callable[[Mapping[uuid.UUID, int]], object],
        remove_old: Callable[[], object],
        *,
        note_accepted: Callable[[], object] = lambda: None,
        attempts_retention_days: int,
    ) -> None:
        """Keep the parts.

        Args:
            engine: the database.
            ring: rings destinations.
            move_dead_letters: takes given-up messages from Redis to Postgres; returns how many.
            forget_batches: lets Redis forget batches that are finished, given how many documents
                of each have been applied.
            remove_old: removes what is kept too long, for a moment (``worker.retention``).
            note_accepted: writes down what Redis has counted of the intake.
            attempts_retention_days: how long attempts are kept, whose days go whole.
        """
        self._engine = engine
        self._ring = ring
        self._move_dead_letters = move_dead_letters
        self._forget_batches = forget_batches
        self._remove_old = remove_old
        self._note_accepted = note_accepted
        self._retention_days = attempts_retention_days
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin to look, twice a second."""
        self._thread.start()

    def stop(self) -> None:
        """End behind the work that is under way."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        pause = LOOK_EVERY_SECONDS
        while not self._stopping.wait(pause):
            try:
                self.look()
                pause = LOOK_EVERY_SECONDS
                continue
            except (DatabaseUnavailable, SQLAlchemyError, RedisError) as error:
                LOG.warning("sweep.failed", reason=str(error).splitlines()[0])
            except Exception:
                # A row of a newer version, say. Without a sweeper no retry would be due any more.
                LOG.exception("sweep.failed")
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def look(self) -> None:
        """Do what is due, if it is this process's turn."""
        if self._turn("sweep", SWEEP_EVERY_SECONDS):
            self.sweep()
        if self._turn("fold", FOLD_EVERY_SECONDS):
            self.fold()
        if self._turn("replay", REPLAY_EVERY_SECONDS):
            self.replay()
        if self._turn("dead_letters", DEAD_LETTERS_EVERY_SECONDS) and (
            moved := self._move_dead_letters()
        ):
            LOG.error("dead_letters.moved", messages=moved)
        if self._turn("retain", RETAIN_EVERY_SECONDS):
            self.retain()
        if self._turn("remove", REMOVE_EVERY_SECONDS):
            self._remove_old()

    def sweep(self) -> None:
        """Hold, resume and cancel as destinations are configured now; ring those that wait."""
        for move in (holds.hold, holds.resume):
            self._in_pieces(move)
        waiting = self._in_transaction(
            lambda connection: ticks.waiting_destinations(connection, DEFAULT_TENANT)
        )
        if waiting:
            self._ring(DEFAULT_TENANT, waiting)
        self._in_transaction(
            lambda connection: deliveries.cancel_of_deleted_destinations(connection, DEFAULT_TENANT)
        )

    def fold(self) -> None:
        """Add up what was counted since the last time."""
        self._note_accepted()
        self._in_transaction(lambda connection: counters.fold(connection, DEFAULT_TENANT))
        applied = self._in_transaction(
            lambda connection: batches.applied(
                connection, DEFAULT_TENANT, batches.fold(connection, DEFAULT_TENANT)
            )
        )
        if applied:
            self._forget_batches(applied)

    def _in_pieces(self, move: Callable[[Connection, int], int]) -> None:
        """Move rows, a transaction for each piece, while there are some and a tick has time."""
        until = time.monotonic() + LONGEST_MOVE_SECONDS
        moved = holds.PIECE_ROWS
        while moved == holds.PIECE_ROWS and time.monotonic() < until:
            moved = self._in_transaction(lambda connection: move(connection, DEFAULT_TENANT))

    def replay(self) -> None:
        """Plan anew what somebody asked for, for a while; the rest comes next time."""
        until = time.monotonic() + REPLAY_SECONDS
        while time.monotonic() < until and not self._stopping.is_set():
            job = self._in_transaction(
                lambda connection: replays.advance(connection, DEFAULT_TENANT)
            )
            if job is None:
                return
            if job.finished_at is not None:
                LOG.info(
                    "replay.finished", id=str(job.id), planned=job.planned, skipped=job.skipped
                )

    def retain(self) -> None:
        """Make room for the attempts of the days to come, and drop what is too old."""
        today = datetime.now(UTC).date()
        days = self._retention_days
        made = self._in_transaction(lambda connection: attempt_days.make_ahead(connection, today))
        dropped = self._in_transaction(
            lambda connection: attempt_days.drop_old(connection, today, retention_days=days)
        )
        if made or dropped:
            LOG.info(
                "attempts.days", made=[str(day) for day in made], dropped=[str(d) for d in dropped]
            )

    def _turn(self, name: str, every_seconds: float) -> bool:
        return self._in_transaction(
            lambda connection: ticks.take(connection, DEFAULT_TENANT, name, every_seconds)
        )

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        with transaction(self._engine, durable=False) as connection:
            return work(connection)
