"""Calls between collectors, on the pump's loop: recorded, rung for, and watched until they end."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import structlog
from sqlalchemy import Engine

from app.storage import steps
from app.storage.deliveries import DeliveryKey, DeliveryResult
from app.storage.engine import transaction
from app.storage.steps import Begun, NewStep, Step

LOG = structlog.get_logger(__name__)
T = TypeVar("T")
THREADS = 2
"""And as many connections of the engine's pool."""
SHORTEST_LOOK_SECONDS = 0.1
LONGEST_LOOK_SECONDS = 1.0
"""For calls that another process answers; what this one has recorded is looked up at once."""

OnEnded = Callable[[Step], None]


class _Waiter(NamedTuple):
    owner: object
    step: Step
    on_ended: OnEnded


class Calls:
    """What the functions of a process wait for."""

    def __init__(self, engine: Engine, ring: Callable[[int, Sequence[uuid.UUID]], object]) -> None:
        """Keep the parts.

        Args:
            engine: its pool must have ``THREADS`` to spare.
            ring: rings destinations of a tenant.
        """
        self._engine = engine
        self._ring = ring
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="calls")
        self._waiting: dict[DeliveryKey, list[_Waiter]] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Stop looking."""
        if self._task:
            self._task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def begin(self, parent: DeliveryKey, caller: str, calls: Sequence[NewStep]) -> Begun:
        """Record calls, plan their deliveries and ring for them."""

        def work() -> Begun:
            with transaction(self._engine) as connection:
                begun = steps.begin(connection, parent, caller, calls)
            if begun.planned:
                try:
                    self._ring(parent.tenant_id, begun.planned)
                except Exception as error:  # noqa: BLE001  (who looks by himself finds them)
                    LOG.warning("doorbell.failed", reason=str(error))
            return begun

        return await self._in_thread(work)

    def watch(self, owner: object, waiting: Iterable[Step], on_ended: OnEnded) -> None:
        """Call back for each of these when its delivery has ended and that is recorded."""
        for step in waiting:
            self._waiting.setdefault(step.child, []).append(_Waiter(owner, step, on_ended))
        self._news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._look())

    def forget(self, owner: object) -> None:
        """Call somebody back no more."""
        for child, waiters in list(self._waiting.items()):
            if left := [one for one in waiters if one.owner is not owner]:
                self._waiting[child] = left
            else:
                del self._waiting[child]

    def recorded(self, results: Sequence[DeliveryResult]) -> None:
        """Look at once where one of the results may be waited for."""
        if self._waiting and any(one.key in self._waiting for one in results):
            self._news.set()

    async def _look(self) -> None:
        pause = SHORTEST_LOOK_SECONDS
        while self._waiting:
            self._news.clear()
            try:
                ended = await self._settle()
            except Exception as error:  # noqa: BLE001  (they end some other time)
                LOG.warning("calls.look_failed", error=f"{type(error).__name__}: {error}")
                ended = []
            for step in ended:
                for waiter in self._waiting.pop(step.child, ()):
                    waiter.on_ended(step)
            pause = SHORTEST_LOOK_SECONDS if ended else min(1.5 * pause, LONGEST_LOOK_SECONDS)
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                continue
        self._task = None

    async def _settle(self) -> list[Step]:
        by_tenant: dict[int, list[Step]] = {}
        for waiters in self._waiting.values():
            step = waiters[0].step
            by_tenant.setdefault(step.parent.tenant_id, []).append(step)

        def work() -> list[Step]:
            ended: list[Step] = []
            for tenant_id, waiting in by_tenant.items():
                with transaction(self._engine) as connection:
                    ended += steps.settle(connection, tenant_id, waiting)
            return ended

        return await self._in_thread(work)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
