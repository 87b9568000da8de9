"""Requests one by one, further and further apart, to a receiver that refuses every one."""

from __future__ import annotations

from pydantic import BaseModel

from app.domain.deliveries import Outcome, OutcomeKind

FIRST_SECONDS = 0.02
LONG_SECONDS = 5.0
SHARE_OF_OUTAGE = 0.1
LONGEST_SECONDS = 60.0
"""A pause grows to five seconds, then to a tenth of the outage: what is back is soon noticed."""
MORE, LESS = 1.25, 0.99
"""For a receiver that takes so many requests a second and no more: found from both sides."""


class PauseMemory(BaseModel):
    """A pause, to go on with after a restart.

    Attributes:
        seconds: between the starts of two requests; 0 for none.
        left_seconds: until the next.
        failing_seconds: for how long nothing has succeeded; None when something did.
        throttled: whether the receiver said that there are too many requests.
        found_seconds: the pause that was found to be too short when there was one last.
    """

    seconds: float
    left_seconds: float
    failing_seconds: float | None
    throttled: bool
    found_seconds: float


class Pause:
    """The time between the starts of two requests; 0 while there is no reason for any.

    A dead receiver's pause ends with the first success. That of one that says that there are too
    many requests shrinks with each, until it is shorter than an answer.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._found = 0.0
        self._next_at = 0.0
        self._failing_since: float | None = None
        self._throttled = False

    @property
    def active(self) -> bool:
        """Whether requests go one by one."""
        return self.seconds > 0

    def allows(self, now: float) -> bool:
        """Tell whether the next may begin."""
        return self.seconds == 0 or now >= self._next_at

    def wait_seconds(self, now: float) -> float:
        """Return how long until the next may begin."""
        return max(0.0, self._next_at - now) if self.seconds else 0.0

    def began(self, now: float) -> None:
        """A request begins."""
        if self.seconds:
            self._next_at = now + self.seconds

    def failed(self, outcome: Outcome, now: float) -> None:
        """A request came to nothing: wait longer."""
        self._throttled = outcome.kind is OutcomeKind.THROTTLED
        is_first = self._failing_since is None
        self._failing_since = now if self._failing_since is None else self._failing_since
        if self._throttled and is_first:
            longer = MORE * (self.seconds or self._found)
        else:
            longer = 2 * self.seconds
        longest = max(LONG_SECONDS, SHARE_OF_OUTAGE * (now - self._failing_since))
        self.seconds = min(max(FIRST_SECONDS, longer), longest, LONGEST_SECONDS)
        self._next_at = now - outcome.duration_seconds + self.seconds
        if self._throttled and outcome.retry_after_seconds:
            asked = min(outcome.retry_after_seconds, LONGEST_SECONDS)
            self._next_at = max(self._next_at, now + asked)

    def succeeded(self, seconds: float) -> None:
        """A request was answered, after so many seconds."""
        self._failing_since = None
        self.seconds *= LESS if self._throttled else 0
        if self.seconds < seconds:
            self._found, self.seconds = self.seconds, 0.0

    def remember(self, now: float) -> PauseMemory:
        """Return what to go on with later."""
        since = self._failing_since
        return PauseMemory(
            seconds=self.seconds,
            left_seconds=self.wait_seconds(now),
            failing_seconds=None if since is None else now - since,
            throttled=self._throttled,
            found_seconds=self._found,
        )

    @classmethod
    def recall(cls, memory: PauseMemory, *, now: float) -> Pause:
        """Go on with what was remembered."""
        made = cls()
        made.seconds = memory.seconds
        made._next_at = now + memory.left_seconds
        if memory.failing_seconds is not None:
            made._failing_since = now - memory.failing_seconds
        made._throttled = memory.throttled
        made._found = memory.found_seconds
        return made
