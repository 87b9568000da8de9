"""What a concurrency controller sees between two changes of its limit."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.domain.latency import Latency

LOOK_SECONDS = 0.5
LOOK_TURNS, LONGEST_LOOK_TURNS = 2, 8
LOOK_DOUBT = 0.15
"""A look ends when the mean latency is this certain, as a share of it, or after eight turns."""
SETTLE_TURNS = 1.25


@dataclass(slots=True)
class Turn:
    """What was seen since the limit was set.

    Attributes:
        began_at: when it was.
        after: places with higher numbers were taken in it.
        full: whether all places were taken at some time.
        fresh: latency of requests that began in it.
        all: latency of all requests that ended in it. Of the requests that begin in a short time
            the quick ones end in it; together with those that ended late they are what they were.
        failures: requests that failed in it.
    """

    began_at: float
    after: int
    full: bool
    fresh: Latency = field(default_factory=Latency)
    all: Latency = field(default_factory=Latency)
    failures: int = 0

    def add(self, seconds: float, *, fresh: bool) -> None:
        """Count an answer."""
        self.all.add(seconds)
        if fresh:
            self.fresh.add(seconds)

    @property
    def ended(self) -> int:
        """Requests that ended in it."""
        return self.failures + self.all.answers

    @property
    def failing_share(self) -> float:
        """Of the requests that ended, without the one that may be an accident."""
        return max(0, self.failures - 1) / max(1, self.ended)


class Look:
    """The time for which a limit is kept to be sure of what is seen under it."""

    def __init__(self, now: float, *, settle_seconds: float = 0.0) -> None:
        """Begin to look when the requests of an earlier limit, of that latency, are over."""
        self._from = self._next = now + SETTLE_TURNS * settle_seconds

    def has_begun(self, now: float) -> bool:
        """Tell whether answers count."""
        return now >= self._from

    def is_over(self, latency: Latency, now: float) -> bool:
        """Tell whether there is enough to judge by; if so, not again for a turn.

        Args:
            latency: what was seen so far.
            now: later than what ``has_begun`` was told.
        """
        if now < self._next:
            return False
        self._next = self._from + max(LOOK_SECONDS, LOOK_TURNS * latency.seconds)
        if now < self._next:
            return False
        if latency.doubt > LOOK_DOUBT and now < self._from + LONGEST_LOOK_TURNS * latency.seconds:
            return False
        self._next = now + max(LOOK_SECONDS, latency.seconds)
        return True
