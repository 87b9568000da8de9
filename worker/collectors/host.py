"""Where collectors run: one event loop on a thread of its own, apart from the pump's.

A function that blocks holds up the other collectors of its process, but neither leases nor results,
which are the pump's. One that blocks for too long is found here: ``stalled_seconds``.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any

import structlog
import uvloop

from app.domain.calls import Context
from app.domain.collectors import CollectorSpec
from worker.collectors.free_time import FreeTime

LOG = structlog.get_logger(__name__)
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
CLOSE_SECONDS = 4.0
"""For functions that clean up and then for all lifecycles together; platforms give a process 30 s,
and the pump has had 20."""


class CollectorHost:
    """The loop, and for each collector its context within its lifecycle."""

    def __init__(self, specs: Mapping[str, CollectorSpec]) -> None:
        """Keep the collectors, by their keys; there is no loop before ``start``."""
        self.specs = specs
        self.free_time = FreeTime()
        self.loop: asyncio.AbstractEventLoop
        self._ready: dict[str, Context] = {}
        self._stages: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._running: dict[asyncio.Task[Any], object] = {}
        self._asked_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="collectors", daemon=True)

    def start(self) -> None:
        """Start the loop, and on it the lifecycles."""
        self.loop = uvloop.new_event_loop()
        self._thread.start()
        self.loop.call_soon_threadsafe(self._open)

    def stop(self) -> None:
        """End the lifecycles and the loop; waits for a bounded time."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(CLOSE_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(1.0)
        if self._thread.is_alive():
            LOG.error("collectors.stop_failed", stack=self.stack())
        else:
            self.loop.close()

    # From any thread

    @property
    def ready(self) -> list[str]:
        """The keys of the collectors whose lifecycle has begun."""
        return list(self._ready)

    def context(self, key: str) -> Context | None:
        """Return a collector's context, None while its lifecycle has not begun."""
        return self._ready.get(key)

    def submit(self, work: Coroutine[Any, Any, Any], name: object) -> Future[Any]:
        """Run a coroutine on the loop.

        Args:
            work: the coroutine.
            name: what ``running`` says while it is what the loop executes.
        """
        return asyncio.run_coroutine_threadsafe(self._named(work, name), self.loop)

    @property
    def running(self) -> object | None:
        """The name of what the loop executes at this moment; None where that has none."""
        task = asyncio.current_task(self.loop)
        return None if task is None else self._running.get(task)

    @property
    def stalled_seconds(self) -> float:
        """For how long the loop has not come round since ``beat``, to be called regularly."""
        asked_at = self._asked_at  # in one go, as the loop changes it
        return 0.0 if asked_at is None else time.monotonic() - asked_at

    @property
    def alive(self) -> bool:
        """Whether the loop's thread runs."""
        return self._thread.is_alive()

    def beat(self) -> None:
        """Ask the loop to show that it comes round."""
        if self.alive and self._asked_at is None:
            self._asked_at = time.monotonic()
            self.loop.call_soon_threadsafe(self._on_beat)

    def round(self) -> asyncio.Future[None]:
        """Return a future, of the loop that asks, that is done when this loop comes round."""
        asking = asyncio.get_running_loop()
        done = asking.create_future()

        def tell() -> None:
            if not done.done():
                done.set_result(None)

        self.loop.call_soon_threadsafe(asking.call_soon_threadsafe, tell)
        return done

    def stack(self) -> str:
        """Return where the loop's thread is."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001  (documented)
        return "".join(traceback.format_stack(frame)) if frame else "the thread is gone"

    # On the loop

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
            except BaseException:
                # SystemExit in a task that a function has made: it passes through the loop, and is
                # raised where the task is awaited as well. The others have nothing to do with it.
                LOG.exception("collectors.loop_interrupted")
            else:
                break

    def _open(self) -> None:
        self.free_time.start(self.loop)
        self._stages = [
            self.loop.create_task(self._stage(spec), name=f"lifecycle of {key}")
            for key, spec in self.specs.items()
        ]

    async def _stage(self, spec: CollectorSpec) -> None:
        """Keep a collector's lifecycle open; one that fails holds up no other collector."""
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                context = spec.make_context()
                async with spec.running(context):
                    self._ready[spec.key] = context
                    pause = FIRST_PAUSE_SECONDS
                    LOG.info("collector.ready", key=spec.key)
                    await self._stopping.wait()
            except GeneratorExit:
                raise
            except BaseException:
                # Not our code; nobody else ends these tasks.
                LOG.exception("collector.lifecycle_failed", key=spec.key, again_in=pause)
            finally:
                self._ready.pop(spec.key, None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _close(self) -> None:
        if self._running:
            # They have been cancelled, and may clean up with what their lifecycles keep open.
            await asyncio.wait(set(self._running), timeout=CLOSE_SECONDS / 2)
        self._stopping.set()
        if self._stages:
            await asyncio.wait(self._stages)

    async def _named(self, work: Coroutine[Any, Any, Any], name: object) -> Any:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (we run in one)
        self._running[task] = name
        try:
            return await work
        finally:
            del self._running[task]

    def _on_beat(self) -> None:
        self._asked_at = None
