from datetime import UTC, datetime, timedelta

import pytest

from app.domain.deliveries import Outcome, OutcomeKind
from app.domain.health import FINE, Change, Health, HealthRules, change_of

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
RULES = HealthRules()
BAD = Outcome(kind=OutcomeKind.TEMPORARY, status=500, error="HTTP 500")
GOOD = Outcome(kind=OutcomeKind.SUCCESS, status=200)


def failing(failures, seconds, *, told=False):
    return Health(
        failing_since=NOW - timedelta(seconds=seconds),
        failures=failures,
        last_error="HTTP 500",
        told=told,
    )


def test_only_failures_in_a_row_count():
    health = FINE
    for second in range(3):
        health = health.after(BAD, NOW + timedelta(seconds=second))
    assert (health.failures, health.failing_since, health.last_error) == (3, NOW, "HTTP 500")
    assert health.after(GOOD, NOW) is FINE
    assert FINE.after(GOOD, NOW) is FINE


@pytest.mark.parametrize("kind", [one for one in OutcomeKind if one is not OutcomeKind.SUCCESS])
def test_everything_but_a_success_is_a_failure(kind):
    assert FINE.after(Outcome(kind=kind, error="no"), NOW).failures == 1


DAYS = 24 * 3600


@pytest.mark.parametrize(
    ("before", "now_is", "change"),
    [
        (FINE, FINE, None),
        (FINE, failing(4, 3600), None),
        (FINE, failing(1000, 59), None),
        (FINE, failing(5, 60), Change.FAILING),
        (failing(4, 60), failing(5, 60), Change.FAILING),
        (failing(5, 60, told=True), failing(9, 60), None),
        (failing(5, 60), FINE, None),
        (failing(5, 60, told=True), FINE, Change.RECOVERED),
        # Another row of failures, which began behind a success that nobody was told of yet.
        (failing(9, 9000, told=True), failing(5, 60), Change.FAILING),
        (failing(9, 60, told=True), failing(19, 6 * DAYS), None),
        (failing(19, 6 * DAYS, told=True), failing(20, 6 * DAYS), Change.DISABLED),
        (failing(900, 4 * DAYS, told=True), failing(901, 4 * DAYS), None),
        (FINE, failing(20, 5 * DAYS), Change.DISABLED),
    ],
)
def test_what_is_told(before, now_is, change):
    if before.told and change is None:
        # The same row goes on.
        now_is = Health(
            failing_since=before.failing_since, failures=now_is.failures, last_error="x"
        )
    assert change_of(before, now_is, RULES, NOW) == change
