"""How many requests may be in flight to one destination at a time."""

from __future__ import annotations

from typing import Protocol

from app.domain.deliveries import Outcome


class Concurrency(Protocol):
    """A limit that a holder asks before each request and tells what came of it."""

    def acquire(self) -> bool:
        """Take a place for one request; False when all are taken."""

    def release(self, outcome: Outcome | None) -> None:
        """Give the place back; ``outcome`` is None when no request was made in it."""


class FixedConcurrency:
    """A constant limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0

    def acquire(self) -> bool:
        """Take a place for one request; False when all are taken."""
        if self.in_flight >= self.limit:
            return False
        self.in_flight += 1
        return True

    def release(self, outcome: Outcome | None) -> None:  # noqa: ARG002  (a constant learns nothing)
        """Give the place back."""
        self.in_flight -= 1
