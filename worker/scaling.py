"""When to add an ingest process and when to let one go: by the age of what waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

LOG = structlog.get_logger(__name__)

GROW_AGE_SECONDS = 1.0
"""Of the oldest message: longer than a healthy queue ever is, shorter than anybody minds."""
GROW_EVERY_SECONDS = 5.0
"""A new process needs a second or two until it shows."""
IDLE_SECONDS = 60.0
LOOK_EVERY_SECONDS = 0.5


class Scaler:
    """Decides the number of ingest processes; time is passed in."""

    def __init__(self, least: int, most: int) -> None:
        """Begin with the least.

        Args:
            least: always kept.
            most: never passed.
        """
        self.wanted = least
        self._least = least
        self._most = max(least, most)
        self._grow_at = 0.0
        self._busy_at: float | None = None

    def look(self, now: float, oldest_seconds: float | None) -> int:
        """Return how many processes there should be.

        Args:
            now: seconds of a clock that only goes forward.
            oldest_seconds: age of the oldest message that waits, None when nothing waits or the
                queue cannot be asked. An unreachable queue is no reason to grow.
        """
        if self._busy_at is None or oldest_seconds is not None:
            self._busy_at = now
        if oldest_seconds is not None and oldest_seconds >= GROW_AGE_SECONDS:
            if now >= self._grow_at and self.wanted < self._most:
                self.wanted += 1
                self._grow_at = now + GROW_EVERY_SECONDS
        elif now - self._busy_at >= IDLE_SECONDS and self.wanted > self._least:
            self.wanted -= 1
            # One at a time: the next goes when another minute has been as quiet.
            self._busy_at = now
        return self.wanted


class QueueAge:
    """Asks again and again how old the oldest message is, on a thread of its own.

    Attributes:
        seconds: the last answer; None when nothing waits or the queue does not answer.
    """

    def __init__(self, ask: Callable[[], float | None]) -> None:
        """Keep the question; it may take long or fail."""
        self.seconds: float | None = None
        self._ask = ask
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue-age", daemon=True)

    def start(self) -> None:
        """Begin to ask, twice a second."""
        self._thread.start()

    def stop(self) -> None:
        """End; a question that is under way is left alone."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_SECONDS):
            try:
                self.seconds = self._ask()
            except Exception as error:  # noqa: BLE001  (supervision goes on without the queue)
                if self.seconds is not None:
                    LOG.warning("queue.age_unknown", reason=str(error))
                self.seconds = None
