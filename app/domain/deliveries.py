"""Deliveries: states, what an attempt can come to, and what follows from it.

::

                 ┌──────────── try again at due_at ───────────┐
                 ▼                                            │
    planned ─▶ pending ──attempt──▶ 2xx ──────────────▶ delivered
                 │  ▲               temporary, throttled ─────┤
           paused│  │resumed        ladder or age exhausted ──┼──▶ failed
                 ▼  │               permanent, twice ─────────┤
                held                gone ─────────────────────┘    (disables the destination)

    a newer version of the document is stored:  pending, held ──▶ superseded
    document or destination is deleted:         pending, held ──▶ cancelled

``next_step`` decides with values only. What it says is recorded before anything else happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from app.domain.attempts import Trace
from app.domain.backoff import DAY, LADDER_SECONDS, jittered


class DeliveryState(StrEnum):
    """Where a delivery stands; the first two are open, the others are ends."""

    PENDING = "pending"
    HELD = "held"
    DELIVERED = "delivered"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


OPEN = frozenset({DeliveryState.PENDING, DeliveryState.HELD})


class OutcomeKind(StrEnum):
    """What an attempt came to, as far as the next step is concerned."""

    SUCCESS = "success"
    TEMPORARY = "temporary"
    THROTTLED = "throttled"
    PERMANENT = "permanent"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One attempt's end.

    Attributes:
        kind: decides the next step.
        status: HTTP status, None when there was no answer.
        error: for people; None for a success.
        retry_after_seconds: what the receiver asked for.
        duration_seconds: from the start of the request to the end of the answer.
        trace: what else is kept of it; None where there was no request.
    """

    kind: OutcomeKind
    status: int | None = None
    error: str | None = None
    retry_after_seconds: float | None = None
    duration_seconds: float = 0.0
    trace: Trace | None = field(default=None, repr=False, compare=False)


class AttemptRecord(NamedTuple):
    """What is recorded of an attempt beside its result; see ``Outcome`` for the fields."""

    started_at: datetime
    kind: OutcomeKind
    trace: Trace | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to go on.

    Attributes:
        ladder_seconds: delay behind each failed attempt; when it ends, so does the delivery.
        jitter: share by which delays are spread.
        max_age_seconds: no attempt is planned later than this after the delivery was.
        retry_after_max_seconds: longest wait that a receiver may ask for.
        second_look_seconds: delay before a permanent answer is believed, None for the ladder's
            second rung. Receivers deploy too, and answer 404 while they do.
    """

    ladder_seconds: tuple[float, ...] = LADDER_SECONDS
    jitter: float = 0.2
    max_age_seconds: float = 5 * DAY
    retry_after_max_seconds: float = DAY
    second_look_seconds: float | None = None


class Attempt(NamedTuple):
    """Which attempt of a delivery it was.

    Attributes:
        number: counted from 1.
        open_since: when the delivery was planned, or resumed last.
        last_status: HTTP status of the attempt before, None when there was no answer.
    """

    number: int
    open_since: datetime
    last_status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """What to record for a delivery.

    Attributes:
        state: pending when there is another attempt.
        due_at: of the next attempt, None when there is none.
        disable_destination: the receiver said that it is gone.
    """

    state: DeliveryState
    due_at: datetime | None = None
    disable_destination: bool = False


DELIVERED = NextStep(state=DeliveryState.DELIVERED)
FAILED = NextStep(state=DeliveryState.FAILED)
GONE = NextStep(state=DeliveryState.FAILED, disable_destination=True)

_BY_STATUS = {
    408: OutcomeKind.TEMPORARY,
    410: OutcomeKind.GONE,
    429: OutcomeKind.THROTTLED,
}


def classify_response(status: int, headers: Mapping[str, str]) -> OutcomeKind:
    """Tell what an HTTP answer means. Only 2xx is a success; redirects are not followed.

    Args:
        status: of the answer.
        headers: of the answer, looked up by ``Retry-After`` (pass a case-insensitive mapping).
    """
    if 200 <= status < 300:  # noqa: PLR2004  (the class is the meaning)
        return OutcomeKind.SUCCESS
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status == 503 and "Retry-After" in headers:  # noqa: PLR2004  (the status is the meaning)
        return OutcomeKind.THROTTLED
    return OutcomeKind.TEMPORARY if status >= 500 else OutcomeKind.PERMANENT  # noqa: PLR2004  (likewise)


def next_step(
    outcome: Outcome,
    attempt: Attempt,
    policy: RetryPolicy,
    *,
    now: datetime,
    random: Callable[[], float],
) -> NextStep:
    """Decide what follows from an attempt.

    Args:
        outcome: of this attempt.
        attempt: which one it was.
        policy: how long to go on.
        now: when it ended.
        random: returns a number in [0, 1), for the jitter.
    """
    if outcome.kind is OutcomeKind.SUCCESS:
        return DELIVERED
    if outcome.kind is OutcomeKind.GONE:
        return GONE
    delay = _delay(outcome, attempt, policy, random)
    if delay is None:
        return FAILED
    due_at = now + timedelta(seconds=delay)
    if due_at > attempt.open_since + timedelta(seconds=policy.max_age_seconds):
        return FAILED
    return NextStep(state=DeliveryState.PENDING, due_at=due_at)


def _delay(
    outcome: Outcome, attempt: Attempt, policy: RetryPolicy, random: Callable[[], float]
) -> float | None:
    if attempt.number > len(policy.ladder_seconds):
        return None
    if outcome.kind is OutcomeKind.PERMANENT:
        if _is_second_look(outcome, attempt):
            return None
        second = policy.second_look_seconds
        if second is None:
            second = policy.ladder_seconds[:2][-1]
        return jittered(second, policy.jitter, random)
    delay = jittered(policy.ladder_seconds[attempt.number - 1], policy.jitter, random)
    asked = min(outcome.retry_after_seconds or 0.0, policy.retry_after_max_seconds)
    # Never sooner than asked, and never sooner than the ladder: `Retry-After: 1` ten times over
    # would use up all attempts in ten seconds.
    return max(delay, asked * (1 + policy.jitter * random()))


def _is_second_look(outcome: Outcome, attempt: Attempt) -> bool:
    """Tell whether the attempt before said the same."""
    if outcome.status is None:
        # We refused to send it, and what has no answer does not say why.
        return attempt.number > 1
    before = attempt.last_status
    return before is not None and classify_response(before, {}) is OutcomeKind.PERMANENT
