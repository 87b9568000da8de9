"""How many requests may be in flight to one destination at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from app.domain.deliveries import Outcome


class Concurrency(Protocol):
    """A limit that a holder asks before each request and tells what came of it.

    Times are seconds of one clock that never goes back; which one is the caller's choice.
    """

    @property
    def limit(self) -> int:
        """How many may be in flight now."""

    def acquire(self, now: float) -> int:
        """Take a place for one request and return its number; 0 when there is none now.

        Numbers rise, so that it can be told which requests began under which limit.
        """

    def release(self, place: int, outcome: Outcome | None, now: float) -> None:
        """Give the place back; ``outcome`` is None when no request was made in it."""

    def wait_seconds(self, now: float) -> float | None:
        """Return when to ask again behind a refusal; None when the next release will tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of the limit; the same one twice fixes it.

    Attributes:
        min: kept to while the receiver answers at all.
        max: never exceeded.
    """

    min: int = 1
    max: int = 50


class FixedConcurrency:
    """A constant limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0

    def acquire(self, now: float) -> int:  # noqa: ARG002  (a constant knows no time)
        """Take a place for one request; 0 when all are taken."""
        if self.in_flight >= self.limit:
            return 0
        self.in_flight += 1
        return 1

    def release(self, place: int, outcome: Outcome | None, now: float) -> None:  # noqa: ARG002  (nor does it learn)
        """Give the place back."""
        self.in_flight -= 1

    def wait_seconds(self, now: float) -> float | None:  # noqa: ARG002  (likewise)
        """Only a release makes room."""
        return None
