"""Keeps rows in flight: one task per place of the concurrency limit, each sending row after row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from app.domain.concurrency import Concurrency
from app.domain.deliveries import Outcome
from app.storage.deliveries import DueDelivery
from worker.workload import Budget

FLOOR_SOCKETS = 4
"""What each destination may have in flight however many others hang."""

Take = Callable[[], DueDelivery | None]
Settle = Callable[[DueDelivery], Awaitable[Outcome | None]]


class Dispatch:
    """The requests in flight to one destination.

    A task takes the next row as soon as its last one is settled, so that a quick receiver costs no
    task per request. It ends when there is no row, or when the limit has no place for it any more.
    """

    def __init__(
        self,
        concurrency: Concurrency,
        sockets: Budget,
        *,
        take: Take,
        settle: Settle,
        on_drained: Callable[[], None],
    ) -> None:
        """Prepare; nothing is sent before ``start``.

        Args:
            concurrency: gives the places, and hears what came of each request.
            sockets: of the process; each request beyond the floor takes one.
            take: the next row, None when nothing may be sent now.
            settle: sends a row; None when that took no request. Never raises.
            on_drained: called when nothing is in flight any more.
        """
        self._concurrency = concurrency
        self._sockets = sockets
        self._take = take
        self._settle = settle
        self._on_drained = on_drained
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, rows: int) -> None:
        """Start a task for each row, as far as there are places."""
        for _ in range(rows):
            is_beyond_floor = len(self._tasks) >= FLOOR_SOCKETS
            if is_beyond_floor and self._sockets.free <= 0:
                break
            place = self._concurrency.acquire(self._loop.time())
            if not place:
                break
            self._sockets.charge(is_beyond_floor)
            task = asyncio.create_task(self._send(place))
            self._tasks.add(task)
            task.add_done_callback(self._on_done)

    async def wait(self, seconds: float) -> None:
        """Return when nothing is in flight, or after so many seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def give_up(self) -> None:
        """Cancel the requests in flight; what comes of them nobody will know."""
        for task in self._tasks:
            task.cancel()

    async def _send(self, place: int) -> None:
        try:
            while place and (due := self._take()) is not None:
                outcome = await self._settle(due)
                now = self._loop.time()
                self._concurrency.release(place, outcome, now)
                place = self._concurrency.acquire(now)
        finally:
            if place:
                self._concurrency.release(place, None, self._loop.time())

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._sockets.charge(-(len(self._tasks) >= FLOOR_SOCKETS))
        if not self._tasks:
            self._on_drained()
