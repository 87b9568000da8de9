"""Calls of code that is not ours, which may never come back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class UnderWay:
    """Knows for how long the oldest call has not returned; threads may call at the same time.

    A thread cannot be ended from outside. Only its process can, and its watchdog asks here whether
    it must: one thread that waits for ever lets every other go on and looks like health.
    """

    def __init__(self) -> None:
        self._began: dict[object, float] = {}

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call as under way until the block ends."""
        this = object()
        self._began[this] = time.monotonic()
        try:
            yield
        finally:
            del self._began[this]

    def silent_seconds(self) -> float:
        """Return the age of the oldest call; 0 when none is under way."""
        # A list is made in one step, which no other thread comes between.
        began = list(self._began.values())
        return time.monotonic() - min(began) if began else 0.0
