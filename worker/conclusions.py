"""What follows from an attempt, whoever made it: the step, and the result to be recorded."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from app.domain.attempts import Trace
from app.domain.deliveries import (
    FAILED,
    Attempt,
    AttemptRecord,
    DeliveryState,
    NextStep,
    Outcome,
    OutcomeKind,
    RetryPolicy,
    next_step,
)
from app.domain.destinations import Destination
from app.storage.deliveries import DeliveryKey, DeliveryResult
from app.storage.due import DueDelivery
from worker.clock import own_time


class Attempted(NamedTuple):
    """An attempt's end, with the step that follows from it."""

    outcome: Outcome
    step: NextStep
    result: DeliveryResult


class Moment(NamedTuple):
    """When an attempt ended, and a number in [0, 1) that spreads what follows from it."""

    at: datetime
    chance: float


class Conclusions:
    """Draws them by a destination's policy.

    ``policy`` is the usual one, ``now`` tells the time by which things are due: the database's.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        now: Callable[[], datetime] = own_time,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self._now = now
        self._random = random

    def conclude(
        self,
        due: DueDelivery,
        outcome: Outcome,
        policy: RetryPolicy,
        *,
        value: str | None = None,
        final: bool = False,
        moment: Moment | None = None,
    ) -> Attempted:
        """Return what follows from an attempt that has ended.

        Args:
            due: what was attempted.
            outcome: of it.
            policy: how long to go on.
            value: JSON that is to be kept with a success.
            final: no other attempt is to be made.
            moment: of the attempt's end; the same one for all that travelled together.
        """
        now, chance = moment or self.moment()
        attempts = due.attempts + 1
        step = (
            FAILED
            if final
            else next_step(
                outcome,
                Attempt(number=attempts, open_since=due.open_since, last_status=due.last_status),
                policy,
                now=now,
                random=lambda: chance,
            )
        )
        return Attempted(
            outcome=outcome,
            step=step,
            result=DeliveryResult(
                key=due.key,
                state=step.state,
                attempts=attempts,
                due_at=step.due_at,
                status=outcome.status,
                error=outcome.error,
                finished_at=now,
                value=value,
                attempt=AttemptRecord(
                    started_at=now - timedelta(seconds=outcome.duration_seconds),
                    kind=outcome.kind,
                    trace=outcome.trace or Trace(total_ms=outcome.duration_seconds * 1000),
                ),
            ),
        )

    def moment(self) -> Moment:
        """Return the present one."""
        return Moment(self._now(), self._random())

    def due_if_lost(self, due: DueDelivery, policy: RetryPolicy) -> datetime | None:
        """Return when to try again if this process dies of the attempt, None for at once.

        A crash is a failure like any other. Without its delay the next process would die of the
        same delivery at once, and those after it.
        """
        crash = Outcome(kind=OutcomeKind.TEMPORARY)
        return self.conclude(due, crash, policy).step.due_at

    def without_request(self, due: DueDelivery, policy: RetryPolicy) -> DeliveryResult | None:
        """Return the end of a delivery that needs no attempt, None when it needs one."""
        if due.document_seq != due.key.seq:
            return self._ended(due, DeliveryState.SUPERSEDED, None)
        if due.attempts > len(policy.ladder_seconds):
            if due.last_status is None:
                # Marked before each request, and never once recorded: every holder died of it.
                reason = f"{due.attempts} attempts began and none came back"
            else:
                reason = f"{due.attempts} attempts began, and its destination allows no more by now"
            return self._ended(due, DeliveryState.FAILED, reason)
        return None

    def _ended(self, due: DueDelivery, state: DeliveryState, error: str | None) -> DeliveryResult:
        return DeliveryResult(
            key=due.key,
            state=state,
            attempts=due.attempts,
            due_at=None,
            status=due.last_status,
            error=error,
            finished_at=self._now(),
        )


class Attempting(Protocol):
    """What a holder needs of those who make attempts: by webhook, or by a collector."""

    conclusions: Conclusions

    def prepare(self, destination: Destination) -> Any:
        """Return the destination, prepared once for many attempts.

        Raises:
            TargetUnusable: nothing can be delivered to it by anybody, until something is mended.
            ValueError: nothing can be delivered to it from here.
        """

    async def make(
        self, due: DueDelivery, target: Any, policy: RetryPolicy, resume: Callable[[], None]
    ) -> Attempted | None:
        """Attempt a delivery once, or go on with an attempt that waits.

        None when it now waits for other deliveries, and nothing is under way: ``resume`` is called
        when it is to be made again.
        """

    async def make_together(
        self, unit: Sequence[DueDelivery], target: Any, policy: RetryPolicy
    ) -> list[Attempted]:
        """Attempt several deliveries in one request, which comes to the same for all of them."""

    def abandon(self, keys: Sequence[DeliveryKey]) -> None:
        """Forget attempts that wait."""

    def recorded(self, results: Sequence[DeliveryResult]) -> None:
        """Hear of results that are committed."""
