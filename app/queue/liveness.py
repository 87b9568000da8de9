"""A process of which a part is dead or silent ends, so that its supervisor starts a new one."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

import structlog
from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

if TYPE_CHECKING:
    from app.queue.broker import HardenedBroker

LOG = structlog.get_logger(__name__)

SILENT_SECONDS = 60.0
LOOK_EVERY_SECONDS = 5.0
EXIT_SILENT = 70


class Vital(NamedTuple):
    """A part without which the process is of no use.

    Attributes:
        silent_seconds: for which it has not shown that it works.
        most_seconds: for which it may be silent; None: as long as a consumer.
    """

    silent_seconds: Callable[[], float]
    most_seconds: float | None = None


class Watchdog(Middleware):
    """Looks at the consumer threads of its process, and at the parts that it names."""

    def __init__(
        self,
        *,
        silent_seconds: float = SILENT_SECONDS,
        look_every_seconds: float = LOOK_EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """Set the bounds; ``end`` gets the exit code."""
        self._silent_seconds = silent_seconds
        self._look_every_seconds = look_every_seconds
        self._clock = clock
        self._end = end
        self._stopping = threading.Event()

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Begin to look."""
        threading.Thread(
            target=self._run, args=(broker, worker), name="watchdog", daemon=True
        ).start()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002  (signature)
        """Stop looking: consumers end now."""
        self._stopping.set()

    def _run(self, broker: HardenedBroker, worker: Worker) -> None:
        looked_at = self._clock()
        while not self._stopping.wait(self._look_every_seconds):
            paused = self._clock() - looked_at > 2 * self._look_every_seconds
            looked_at = self._clock()
            # The whole process stood still (SIGSTOP, a frozen container): let the consumers run
            # first, they have been as silent as this thread.
            if not paused and (broken := self.broken(broker, worker)):
                LOG.critical("process.silent", parts=broken)
                # Where it hangs, on stderr.
                faulthandler.dump_traceback(2)
                self._end(EXIT_SILENT)
                return

    def broken(self, broker: HardenedBroker, worker: Worker) -> list[str]:
        """Return the queues whose consumer thread is dead or has not come by for too long.

        And "worker" for each working thread that is dead: the queues go on filling it. And each
        other part of the process that has been silent for longer than it may.
        """
        now = self._clock()
        consumers = [
            queue
            for queue, thread in worker.consumers.items()
            if not thread.is_alive() or now - broker.seen.get(queue, now) > self._silent_seconds
        ]
        parts = [
            name
            for name, part in broker.parts.items()
            if part.silent_seconds() > (part.most_seconds or self._silent_seconds)
        ]
        return parts + consumers + ["worker" for thread in worker.workers if not thread.is_alive()]


class TerminateOnce(Middleware):
    """Counts SIGTERM once per process.

    A platform signals the whole group, and Dramatiq's master forwards one more; the second kills
    a worker in the middle of its work (D1).
    """

    def after_process_boot(self, broker: Broker) -> None:  # noqa: ARG002  (signature)
        """Put a guard before the handler that Dramatiq has installed."""
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler):
            signal.signal(signal.SIGTERM, _once(handler))


def _once(handler: Callable[[int, FrameType | None], object]) -> Callable[..., None]:
    told = False

    def once(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if not told:
            told = True
            handler(number, frame)

    return once
