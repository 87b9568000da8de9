"""Keeps rows in flight: one task per place of the concurrency limit, each sending row after row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from app.domain.concurrency import Concurrency
from app.domain.deliveries import Outcome
from worker.workload import Budget, Unit

FLOOR_SOCKETS = 4
"""What each destination may have in flight however many others hang."""

Waiting = Callable[[], int]
Take = Callable[[], Unit | None]
Settle = Callable[[Unit], Awaitable[Outcome | None]]


class Dispatch:
    """The requests in flight to one destination.

    A task takes what comes next as soon as its last request is settled, so that a quick receiver
    costs no task per request. It ends when there is nothing, or when the limit has no place for it
    any more; others start when the limit has risen, or when the time has come that it waits for.
    """

    def __init__(
        self,
        concurrency: Concurrency,
        sockets: Budget,
        *,
        waiting: Waiting,
        take: Take,
        settle: Settle,
        on_drained: Callable[[], None],
    ) -> None:
        """Prepare; nothing is sent before ``start``.

        Args:
            concurrency: gives the places, and hears what came of each request.
            sockets: of the process; each request beyond the floor takes one.
            waiting: how many requests could be made now.
            take: what the next one carries, None when nothing may be sent now.
            settle: sends it; None when that took no request. Never raises.
            on_drained: called when nothing is in flight any more.
        """
        self._concurrency = concurrency
        self._sockets = sockets
        self._waiting = waiting
        self._take = take
        self._settle = settle
        self._on_drained = on_drained
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._setting_out = 0
        """Places that are taken for a request each, which is still among those that wait."""

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self) -> None:
        """Start a task for each request that waits, as far as there are places."""
        now = self._loop.time()
        while self._waiting() > self._setting_out:
            is_beyond_floor = len(self._tasks) >= FLOOR_SOCKETS
            if is_beyond_floor and self._sockets.free <= 0:
                break
            place = self._concurrency.acquire(now)
            if not place:
                self._start_later(now)
                break
            self._sockets.charge(is_beyond_floor)
            self._setting_out += 1
            task = asyncio.create_task(self._send(place))
            self._tasks.add(task)
            task.add_done_callback(self._on_done)

    def _start_later(self, now: float) -> None:
        wait = self._concurrency.wait_seconds(now)
        if wait is not None and self._timer is None:
            self._timer = self._loop.call_later(wait, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.start()

    async def wait(self, seconds: float) -> None:
        """Return when nothing is in flight, or after so many seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def give_up(self) -> None:
        """Cancel the requests in flight; what comes of them nobody will know."""
        if self._timer:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    async def _send(self, place: int) -> None:
        try:
            while place:
                self._setting_out -= 1
                unit = self._take()
                if unit is None:
                    break
                outcome = await self._settle(unit)
                now = self._loop.time()
                self._concurrency.release(place, outcome, now)
                place = self._concurrency.acquire(now)
                self._setting_out += bool(place)
                # What has come may have made room for more than one.
                self.start()
        finally:
            if place:
                self._concurrency.release(place, None, self._loop.time())

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._sockets.charge(-(len(self._tasks) >= FLOOR_SOCKETS))
        if not self._tasks:
            self._on_drained()
