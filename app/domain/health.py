"""How long a destination has been failing, and what that leads to.

::

    a failure                   5 failures in a row, for a minute       20 in a row, for five days
    fine ────▶ failing (counted) ────▶ destination.failing is told ────▶ disabled, and told
      ▲            │                           │
      └─ success ──┴───────── success ─────────┘ destination.recovered is told

Only what follows in a row counts: whoever takes one delivery in a hundred is not dead. One delivery
that exhausts its retries disables nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from app.domain.backoff import DAY, MINUTE
from app.domain.deliveries import Outcome, OutcomeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRules:
    """When a row of failures is told, and when it disables; both conditions of each must hold.

    Attributes:
        failing_attempts, failing_seconds: for ``destination.failing``.
        disabling_attempts, disabling_seconds: for ``destination.disabled``.
    """

    failing_attempts: int = 5
    failing_seconds: float = MINUTE
    disabling_attempts: int = 20
    disabling_seconds: float = 5 * DAY


class Change(StrEnum):
    """What has become of a destination."""

    FAILING = "failing"
    RECOVERED = "recovered"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A destination's failures in a row.

    Attributes:
        failing_since: when the first of them ended; None when the last attempt succeeded.
        failures: how many there are.
        last_error: what the last one said.
        told: whether ``destination.failing`` was told of them.
    """

    failing_since: datetime | None = None
    failures: int = 0
    last_error: str | None = None
    told: bool = False

    def after(self, outcome: Outcome, now: datetime) -> Health:
        """Return what it is behind one more attempt."""
        if outcome.kind is OutcomeKind.SUCCESS:
            return FINE if self.failures else self
        return replace(
            self,
            failing_since=self.failing_since or now,
            failures=self.failures + 1,
            last_error=outcome.error,
        )


FINE = Health()


class Observed(NamedTuple):
    """A destination's health, as its holder has it.

    Attributes:
        url: whose receiver it is of, None before anything is sent.
        goes_on: whether these are the failures in a row that were noted last, and more of them.
    """

    health: Health
    url: str | None = None
    goes_on: bool = False


class Runtime(NamedTuple):
    """How a destination does, some seconds ago at most.

    Attributes:
        limit: how many requests may be in flight, None before anything was delivered.
        reason: why.
        health: its failures in a row.
    """

    limit: int | None = None
    reason: str | None = None
    health: Health = FINE


def change_of(before: Health, now_is: Health, rules: HealthRules, now: datetime) -> Change | None:
    """Tell what is to be told of the way from one health to the next; None for nothing.

    Args:
        before: what was written last.
        now_is: what it is now.
        rules: when what is told.
        now: by the clock that ``failing_since`` is of.
    """
    if now_is.failing_since is None:
        return Change.RECOVERED if before.told else None
    failing_for = now - now_is.failing_since
    if now_is.failures >= rules.disabling_attempts and failing_for >= timedelta(
        seconds=rules.disabling_seconds
    ):
        return Change.DISABLED
    is_failing = now_is.failures >= rules.failing_attempts and failing_for >= timedelta(
        seconds=rules.failing_seconds
    )
    if not is_failing or (before.told and before.failing_since == now_is.failing_since):
        return None
    return Change.FAILING
