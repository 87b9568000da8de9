"""Lanes: the higher is taken first, but after some messages a lower one gets its turn."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Sequence
from typing import Any

from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

from app.queue.names import LANES

TURNS = 8


class LaneQueue(queue.Queue[Any]):
    """The hand-over from consumers to working threads, in the order of the lanes.

    A lane that waits is passed over by at most ``turns`` messages of higher lanes; then it gets
    one (of several such lanes, the higher first). So nothing starves, and what is urgent waits for
    one message of each lower lane at most.
    """

    def __init__(self, lanes: Sequence[str] = LANES, *, turns: int = TURNS) -> None:
        """Make an empty queue; queues that are no lane come behind all lanes."""
        self._turns = turns
        self._rank = {lane: rank for rank, lane in enumerate(lanes)}
        super().__init__()

    def _init(self, maxsize: int) -> None:  # noqa: ARG002  (given by queue.Queue; always unbounded)
        count = len(self._rank) + 1
        self._waiting: list[deque[Any]] = [deque() for _ in range(count)]
        self._passed_over = [0] * count

    def _qsize(self) -> int:
        return sum(map(len, self._waiting))

    def _put(self, item: Any) -> None:
        self._waiting[self._rank.get(item.message.queue_name, -1)].append(item)

    def _get(self) -> Any:
        ranks = [rank for rank, waiting in enumerate(self._waiting) if waiting]
        due = (rank for rank in ranks if self._passed_over[rank] >= self._turns)
        chosen = next(due, ranks[0])
        self._passed_over[chosen] = 0
        for rank in ranks:
            if rank > chosen:
                self._passed_over[rank] += 1
        return self._waiting[chosen].popleft()


class LaneOrder(Middleware):
    """Gives the worker a ``LaneQueue`` before its threads start, whoever starts it."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002  (signature)
        """Replace the queue while it is still empty."""
        worker.work_queue = LaneQueue()  # type: ignore[assignment]  # a Queue with another order
