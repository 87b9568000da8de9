"""When to add an ingest process and when to let one go: by the age of what waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from app.queue.depth import Waiting

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
        # Of the first look: the processes that begin with us need their second or two as well.
        self._grow_at: float | None = None
        self._idle_since: float | None = None

    def look(
        self, now: float, waiting: Waiting | None, *, room: Callable[[], bool] = lambda: True
    ) -> int:
        """Return how many processes there should be.

        Args:
            now: seconds of a clock that only goes forward.
            waiting: what is queued; None when the queue does not say, which is a reason neither to
                grow nor to shrink.
            room: asked before growing: is one more possible now?
        """
        if self._grow_at is None:
            self._grow_at = now + GROW_EVERY_SECONDS
        # With fewer messages than processes one has nothing to do. To ask for none at all would
        # keep everything after a bulk load for the sake of a document a second.
        if waiting is None or waiting.messages >= max(1, self.wanted):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        old = waiting is not None and (waiting.oldest_seconds or 0.0) >= GROW_AGE_SECONDS
        if old and now >= self._grow_at and self.wanted < self._most and room():
            self.wanted += 1
            self._grow_at = now + GROW_EVERY_SECONDS
        elif self._idle_since is not None and now - self._idle_since >= IDLE_SECONDS:
            # One at a time: the next goes when another minute has been as quiet.
            self.wanted = max(self._least, self.wanted - 1)
            self._idle_since = now
        return self.wanted


class QueueWatch:
    """Asks again and again what waits, on a thread of its own: a question may take seconds.

    Attributes:
        waiting: the last answer; None when the queue does not answer.
    """

    def __init__(self, ask: Callable[[], Waiting]) -> None:
        """Keep the question; it may take long or fail."""
        self.waiting: Waiting | None = None
        self._ask = ask
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue-watch", daemon=True)

    def start(self) -> None:
        """Begin to ask, twice a second."""
        self._thread.start()

    def stop(self) -> None:
        """End; a question that is under way is left alone."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_SECONDS):
            try:
                self.waiting = self._ask()
            except Exception as error:  # noqa: BLE001  (supervision goes on without the queue)
                if self.waiting is not None:
                    LOG.warning("queue.age_unknown", reason=str(error))
                self.waiting = None


class QueueFollower:
    """A scaler and what it looks at; lives as long as the supervisor."""

    def __init__(self, scaler: Scaler, watch: QueueWatch, room: Callable[[], bool]) -> None:
        """Keep the parts.

        Args:
            scaler: decides.
            watch: knows what waits.
            room: whether there is memory for one more process.
        """
        self._scaler = scaler
        self._watch = watch
        self._room = room
        self.start = watch.start
        self.stop = watch.stop

    def wanted(self, now: float, *, settled: bool) -> int:
        """Return how many processes there should be.

        Args:
            now: seconds of a clock that only goes forward.
            settled: all that there should be are running; where one keeps dying, more would too.
        """
        return self._scaler.look(now, self._watch.waiting, room=lambda: settled and self._room())
