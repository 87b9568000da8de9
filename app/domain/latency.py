"""How long a receiver takes, as far as can be told from a handful of answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

SHORTEST_SECONDS = 0.001
"""Differences below this are the clock's, not the receiver's."""
TRUSTED_ANSWERS = 200
"""More answers than this make nothing surer: those of one moment are slow or quick together."""
ASSUMED_VARIANCE = 0.25
"""What is supposed of the spread before there are answers to tell: most within ±60 %."""


@dataclass(slots=True)
class Latency:
    """The geometric mean of some answers' times, with their spread.

    Everything is kept in logarithms: there a heavy tail has no more weight than it should, and
    "half as long again" is the same distance for a receiver of 5 ms and for one of 2 s.
    """

    answers: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one answer (Welford's method)."""
        value = math.log(max(seconds, SHORTEST_SECONDS))
        self.answers += 1
        distance = value - self.mean
        self.mean += distance / self.answers
        self.squares += distance * (value - self.mean)

    def merge(self, other: Latency) -> None:
        """Count another's answers too."""
        answers = self.answers + other.answers
        if not answers:
            return
        distance = other.mean - self.mean
        self.mean += distance * other.answers / answers
        self.squares += other.squares + distance**2 * self.answers * other.answers / answers
        self.answers = answers

    @property
    def seconds(self) -> float:
        """The typical time of an answer; 0 when there were none."""
        return math.exp(self.mean) if self.answers else 0.0

    @property
    def doubt(self) -> float:
        """Standard deviation of the mean."""
        return math.sqrt(self._variance_with(Latency()) / self._trusted)

    def exceeds(self, other: Latency, factor: float, *, sigmas: float) -> bool:
        """Tell whether this is longer than ``factor`` times the other, with that much certainty.

        A t-test on logarithms, with one spread for both.

        Args:
            other: to compare with.
            factor: above 1.
            sigmas: standard deviations by which it must be longer; 0 for a guess.
        """
        if not self.answers or not other.answers:
            return False
        error = self._variance_with(other) * (1 / self._trusted + 1 / other._trusted)
        return self.mean - other.mean - sigmas * math.sqrt(error) > math.log(factor)

    @property
    def _trusted(self) -> int:
        return max(1, min(self.answers, TRUSTED_ANSWERS))

    def _variance_with(self, other: Latency) -> float:
        squares = self.squares + other.squares + ASSUMED_VARIANCE
        return squares / (self.answers + other.answers + 1)
