"""When the next request to a destination may begin: its concurrency and its rate together."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.adaptive import AdaptiveConcurrency, Memory
from app.domain.concurrency import Bounds
from app.domain.deliveries import Outcome
from app.domain.rates import RateCap


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleState:
    """What one holder leaves to the next.

    Attributes:
        limit: requests in flight that it kept to.
        reason: why, for people.
        memory: of the controller, None when there is none that can be used.
        debt_seconds: of the rate cap.
    """

    limit: int
    reason: str
    memory: Memory | None
    debt_seconds: float


class Throttle:
    """Implements ``Concurrency`` for one holder of a destination."""

    def __init__(
        self, bounds: Bounds, *, state: ThrottleState | None, handed_over: bool, now: float
    ) -> None:
        """Go on where the last holder ended.

        Args:
            bounds: of the limit.
            state: what the last holder left, None from none.
            handed_over: whether it did so at its end; otherwise it went silent, and may have sent
                requests since.
            now: on the clock of all later calls.
        """
        memory = state.memory if state else None
        self._adaptive = (
            AdaptiveConcurrency.recall(bounds, memory, now=now)
            if memory
            else AdaptiveConcurrency(bounds, now=now)
        )
        self._rate: RateCap | None = None
        self._paid_at = now + state.debt_seconds if state else now
        self._handed_over = handed_over

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        return self._adaptive.limit

    def configure(self, bounds: Bounds, max_per_second: float | None, now: float) -> None:
        """Keep to what the destination says now."""
        self._adaptive.set_bounds(bounds, now)
        if max_per_second is None:
            self._rate = None
        elif self._rate is None or self._rate.per_second != max_per_second:
            self._rate = self._cap(max_per_second, now)

    def _cap(self, per_second: float, now: float) -> RateCap:
        if self._rate:
            return RateCap(per_second, paid_at=now + self._rate.debt_seconds(now))
        cap = RateCap(per_second, paid_at=self._paid_at)
        if self._handed_over:
            return cap
        return RateCap(per_second, paid_at=max(self._paid_at, now + cap.most_debt_seconds))

    def acquire(self, now: float) -> int:
        """Take a place for one request and return its number; 0 when there is none now."""
        if self._rate is None:
            return self._adaptive.acquire(now)
        if self._rate.wait_seconds(now) > 0:
            return 0
        place = self._adaptive.acquire(now)
        if place:
            self._rate.take(now)
        return place

    def release(self, place: int, outcome: Outcome | None, now: float) -> None:
        """Give the place back; ``outcome`` is None when no request was made in it."""
        if outcome is None and self._rate:
            self._rate.give_back()
        self._adaptive.release(place, outcome, now)

    def wait_seconds(self, now: float) -> float | None:
        """Return when to ask again behind a refusal; None when the next release will tell."""
        wait = self._adaptive.wait_seconds(now)
        if wait is None or self._rate is None:
            return wait
        return max(wait, self._rate.wait_seconds(now))

    def state(self, now: float) -> ThrottleState:
        """Return what the next holder needs."""
        paid = self._rate.debt_seconds(now) if self._rate else max(0.0, self._paid_at - now)
        return ThrottleState(
            limit=self._adaptive.limit,
            reason=self._adaptive.reason,
            memory=self._adaptive.remember(now),
            debt_seconds=paid,
        )
