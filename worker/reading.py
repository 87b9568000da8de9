"""When a holder reads, from where, and how much at a time."""

from __future__ import annotations

from collections.abc import Sequence

from app.storage.due import START, DueDelivery, DuePage, Position
from worker.workload import size_of

SMALL_PAGE_ROWS = 100
LARGE_PAGE_ROWS = 800
"""Pages grow for who is quick; rows of the slow are better read late, when they are up to date."""
QUICK_SECONDS = 0.5
PAGE_BYTES = 4 * 1024 * 1024
LINGER_SECONDS = 0.25
"""How long a holder that has nothing to do waits for a ring before it looks once more."""
LONGEST_POLL_SECONDS = 2.0
"""Reads without a ring: for what another process was rung for, and retries that fall due."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 2.0
LOOK_BACK_EVERY_SECONDS = 0.25
LOOK_BACK_SEQ = 10_000_000
"""Ten seconds: sequence numbers are microseconds of Redis' clock."""
WRAP_SECONDS = 5.0


class Cursor:
    """Behind which row the next read begins.

    Chunks commit out of the order of their sequence numbers, so a row can appear behind the
    cursor. Short looks back find those of a moment ago, beginning anew finds all. Always beginning
    at 0 would read over every row that has just ended (39 ms a read under a long snapshot).
    """

    def __init__(self) -> None:
        self._place = START
        self._looked_back_at = 0.0
        self._wrapped_at = 0.0

    def begin(self, now: float) -> Position:
        """Return where a read begins that starts now."""
        rank, seq = self._place
        if now - self._wrapped_at >= WRAP_SECONDS:
            self._place = START
        elif now - self._looked_back_at >= LOOK_BACK_EVERY_SECONDS:
            self._place = Position(rank, max(0, seq - LOOK_BACK_SEQ))
            self._looked_back_at = now
        if self._place.seq == 0:
            self._wrapped_at = self._looked_back_at = now
        return self._place

    def end(self, rows: Sequence[DueDelivery]) -> None:
        """Go on behind the rows that came back, or at the beginning when there were none."""
        self._place = Position(rows[-1].rank, rows[-1].key.seq) if rows else START


class Schedule:
    """The rhythm of one holder's reads; times are those of its loop."""

    def __init__(self) -> None:
        self.more = False
        """Whether the last page was full."""
        self.next_at = 0.0
        """When to read although nobody rang."""
        self.rows = SMALL_PAGE_ROWS
        self._began_at = 0.0
        self._poll_seconds = LINGER_SECONDS
        self._pause_seconds = FIRST_PAUSE_SECONDS

    def is_low(self, queued: int) -> bool:
        """Tell whether so few rows are queued that the next page should come."""
        return queued < self.rows // 2

    def begin(self, now: float) -> int:
        """Return how many rows to read."""
        quick = self.more and now - self._began_at < QUICK_SECONDS
        wanted = self.rows * 2 if quick else self.rows // 2
        self.rows = min(max(wanted, SMALL_PAGE_ROWS), LARGE_PAGE_ROWS)
        self._began_at = now
        self.more = False
        return self.rows

    def is_full(self, page: DuePage) -> bool:
        """Tell whether a page has all the rows that were asked for."""
        return len(page.fresh) + len(page.retries) >= self.rows

    def end(self, page: DuePage, *, new: int, max_bytes: int, now: float) -> None:
        """A page has come back, with so many rows that were not known."""
        is_long = sum(map(size_of, page.fresh)) >= max_bytes
        self.more = bool(page.fresh) and (is_long or self.is_full(page))
        self._pause_seconds = FIRST_PAUSE_SECONDS
        if new:
            self._poll_seconds = LINGER_SECONDS
        else:
            self._poll_seconds = min(2 * self._poll_seconds, LONGEST_POLL_SECONDS)
        self.next_at = now + self._poll_seconds

    def failed(self, now: float) -> None:
        """The read failed; the next one waits, longer each time."""
        self.next_at = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    def drained(self, now: float) -> None:
        """Nothing is in flight any more: look soon, and let go if there is nothing."""
        self.next_at = min(self.next_at, now + LINGER_SECONDS)
