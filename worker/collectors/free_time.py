"""The time in which a loop was free to come round.

What one callback takes in one go is nobody else's: a function that waits for its turn meanwhile is
not slow, nor is one that blocks for itself. A tick on the loop finds out: for how long it comes
late, the loop was held up.
"""

from __future__ import annotations

import asyncio
import time

TICK_SECONDS = 0.02
"""Of hold-ups one behind the other, so much of each is not noticed."""


class FreeTime:
    """A clock that stands still while its loop is held up."""

    def __init__(self) -> None:
        """Keep the state; it goes like any clock before ``start``."""
        self._loop: asyncio.AbstractEventLoop
        self._held: tuple[float, float] = (0.0, float("inf"))  # seconds so far, next tick due at

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to tick; to be called on the loop."""
        self._loop = loop
        self._next(0.0)

    @property
    def seconds(self) -> float:
        """The time of this clock; from any thread. Only differences mean something."""
        held, due_at = self._held  # in one go, as the loop changes both
        now = time.monotonic()
        return now - held - _late(now, due_at)

    def _tick(self) -> None:
        held, due_at = self._held
        self._next(held + _late(time.monotonic(), due_at))

    def _next(self, held: float) -> None:
        self._held = held, time.monotonic() + TICK_SECONDS
        self._loop.call_later(TICK_SECONDS, self._tick)


def _late(now: float, due_at: float) -> float:
    return max(0.0, now - due_at)
