"""The middleware of every worker process, in order, each with its reason."""

from __future__ import annotations

from dramatiq.middleware import Middleware

from app.queue.lanes import LaneOrder
from app.queue.liveness import TerminateOnce, Watchdog
from app.queue.retries import DelayedInMemory, HardenedRetries


def worker_middleware() -> list[Middleware]:
    """Return new middleware.

    Not here: Callbacks, Pipelines and group callbacks lose the next step when Redis is down at the
    wrong moment (L2). AgeLimit drops accepted documents. TimeLimit raises inside a thread at any
    line; our waits are bounded one by one. ShutdownNotifications interrupts work that is to finish.
    """
    return [
        # After the actor: decides whether a message is done, retried, given up or handed back.
        HardenedRetries(),
        # Before the threads start: the queue that they read, and a bound.
        LaneOrder(),
        DelayedInMemory(),
        # After boot: one SIGTERM counts, and a broken process ends.
        TerminateOnce(),
        Watchdog(),
    ]
