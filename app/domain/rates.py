"""A cap on requests a second that holds whoever sends them, one after the other."""

from __future__ import annotations

LATE_SECONDS = 0.05
"""How late a request may begin and still leave the next ones in their time: a loop wakes late."""


class RateCap:
    """A token bucket as one moment: the one at which its debt is paid (GCRA, ITU-T I.371).

    In any second no more requests begin than the cap says; with a cap below one, in any
    1 / cap seconds no more than one. That includes requests that catch up because they were late,
    so a cap of 100 is a steady rate of 95.
    """

    def __init__(self, per_second: float, *, paid_at: float) -> None:
        """Begin with a debt, or without one.

        Args:
            per_second: how many requests may begin, above 0.
            paid_at: when the debt of earlier requests is paid, on the clock of all later calls.
        """
        window = max(1.0, 1.0 / per_second)
        self.per_second = per_second
        self._interval = (window + LATE_SECONDS) / (per_second * window)
        self._paid_at = paid_at

    def wait_seconds(self, now: float) -> float:
        """Return how long until the next request may begin."""
        return max(0.0, self._paid_at - LATE_SECONDS - now)

    def take(self, now: float) -> None:
        """A request begins; ``wait_seconds`` has said 0."""
        self._paid_at = max(self._paid_at, now) + self._interval

    def give_back(self) -> None:
        """The last request did not begin after all."""
        self._paid_at -= self._interval

    def debt_seconds(self, now: float) -> float:
        """Return when the debt is paid, from now; for who goes on elsewhere."""
        return max(0.0, self._paid_at - now)

    @property
    def most_debt_seconds(self) -> float:
        """The debt behind a request that has just begun, at most; for who does not know it."""
        return LATE_SECONDS + self._interval
