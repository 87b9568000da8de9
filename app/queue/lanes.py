"""Lanes: the higher is taken first, but after some messages a lower one gets its turn.

Bulk loads besides never have all the threads: however much of one waits, a single document finds
a thread that is free.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

from app.domain.documents import Lane
from app.queue.names import LANES

TURNS = 8
BULK_AT_ONCE = 1
"""Messages of a bulk load that a process works on side by side. They are full chunks, which keep a
processor busy: two made single documents wait twice as long."""


class LaneQueue(queue.Queue[Any]):
    """The hand-over from consumers to working threads, in the order of the lanes.

    A lane that waits is passed over by at most ``turns`` messages of higher lanes; then it gets
    one (of several such lanes, the higher first). So nothing starves, and what is urgent waits for
    one message of each lower lane at most.
    """

    def __init__(
        self,
        lanes: Sequence[str] = LANES,
        *,
        turns: int = TURNS,
        at_once: Mapping[str, int] | None = None,
    ) -> None:
        """Make an empty queue; queues that are no lane come behind all lanes.

        Args:
            lanes: the highest first.
            turns: messages that may pass over one of a lower lane.
            at_once: most messages of a lane that are worked on side by side; no entry, no bound.
        """
        self._turns = turns
        self._rank = {lane: rank for rank, lane in enumerate(lanes)}
        bounds = at_once or {}
        self._room = [bounds.get(lane, 1 << 30) for lane in lanes] + [1 << 30]
        self._taken: dict[int, int] = {}
        super().__init__()

    def task_done(self) -> None:
        """Hear that the calling thread is done with the message it got."""
        with self.not_empty:
            rank = self._taken.pop(threading.get_ident(), None)
            if rank is not None:
                self._room[rank] += 1
                # What waited for room is there now.
                self.not_empty.notify()
        super().task_done()

    def _init(self, maxsize: int) -> None:  # noqa: ARG002  (given by queue.Queue; always unbounded)
        count = len(self._rank) + 1
        self._waiting: list[deque[Any]] = [deque() for _ in range(count)]
        self._passed_over = [0] * count

    def _qsize(self) -> int:
        """Count what may be taken now."""
        return sum(
            min(len(waiting), room) for waiting, room in zip(self._waiting, self._room, strict=True)
        )

    def _put(self, item: Any) -> None:
        self._waiting[self._rank.get(item.message.queue_name, -1)].append(item)

    def get_nowait(self) -> Any:
        """Take what is there, bounds or not: only a worker that hands back its queue asks so."""
        with self.mutex:
            if not any(self._waiting):
                raise queue.Empty
            ranks = [rank for rank, waiting in enumerate(self._waiting) if waiting]
            return self._waiting[self._choose(ranks)].popleft()

    def _get(self) -> Any:
        ranks = [rank for rank, waiting in enumerate(self._waiting) if waiting and self._room[rank]]
        chosen = self._choose(ranks)
        self._room[chosen] -= 1
        self._taken[threading.get_ident()] = chosen
        return self._waiting[chosen].popleft()

    def _choose(self, ranks: Sequence[int]) -> int:
        due = (rank for rank in ranks if self._passed_over[rank] >= self._turns)
        chosen = next(due, ranks[0])
        self._passed_over[chosen] = 0
        for rank in ranks:
            if rank > chosen:
                self._passed_over[rank] += 1
        return chosen


class LaneOrder(Middleware):
    """Gives the worker a ``LaneQueue`` before its threads start, whoever starts it."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002  (signature)
        """Replace the queue while it is still empty."""
        worker.work_queue = LaneQueue(at_once={Lane.BULK: BULK_AT_ONCE})  # type: ignore[assignment]  # a Queue with another order
