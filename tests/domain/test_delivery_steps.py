import itertools
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.backoff import LADDER_SECONDS
from app.domain.deliveries import (
    Attempt,
    DeliveryState,
    Outcome,
    OutcomeKind,
    RetryPolicy,
    classify_response,
    next_step,
)

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
POLICY = RetryPolicy()
MIDDLE = 0.5


def step(kind, attempts, *, age=timedelta(0), random=MIDDLE, policy=POLICY, **facts):
    outcome = Outcome(
        kind=kind, retry_after_seconds=facts.get("retry_after"), status=facts.get("status")
    )
    return next_step(
        outcome,
        Attempt(number=attempts, open_since=NOW - age, last_status=facts.get("last_status")),
        policy,
        now=NOW,
        random=lambda: random,
    )


def delay(decided):
    return (decided.due_at - NOW).total_seconds()


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (200, {}, "success"),
        (201, {}, "success"),
        (202, {}, "success"),
        (204, {}, "success"),
        (299, {}, "success"),
        (300, {}, "permanent"),
        (301, {"Location": "/elsewhere"}, "permanent"),
        (302, {"Location": "/elsewhere"}, "permanent"),
        (304, {}, "permanent"),
        (307, {"Location": "/elsewhere"}, "permanent"),
        (400, {}, "permanent"),
        (401, {}, "permanent"),
        (403, {}, "permanent"),
        (404, {}, "permanent"),
        (405, {}, "permanent"),
        (408, {}, "temporary"),
        (409, {}, "permanent"),
        (410, {}, "gone"),
        (413, {}, "permanent"),
        (422, {}, "permanent"),
        (429, {}, "throttled"),
        (429, {"Retry-After": "5"}, "throttled"),
        (499, {}, "permanent"),
        (500, {}, "temporary"),
        (500, {"Retry-After": "5"}, "temporary"),
        (502, {}, "temporary"),
        (503, {}, "temporary"),
        (503, {"Retry-After": "5"}, "throttled"),
        (504, {}, "temporary"),
        (599, {}, "temporary"),
        (999, {}, "temporary"),
        (101, {}, "permanent"),
    ],
)
def test_only_2xx_is_a_success_and_every_other_answer_has_its_kind(status, headers, kind):
    assert classify_response(status, headers) == kind


@pytest.mark.parametrize("attempts", [1, 5, 50])
def test_a_success_ends_as_delivered(attempts):
    decided = step(OutcomeKind.SUCCESS, attempts)
    assert (decided.state, decided.due_at) == (DeliveryState.DELIVERED, None)


@pytest.mark.parametrize("kind", [OutcomeKind.TEMPORARY, OutcomeKind.THROTTLED])
@pytest.mark.parametrize(("attempts", "seconds"), list(enumerate(LADDER_SECONDS, start=1)))
def test_each_failed_attempt_waits_for_its_rung(kind, attempts, seconds):
    decided = step(kind, attempts)
    assert decided.state is DeliveryState.PENDING
    assert delay(decided) == seconds


@pytest.mark.parametrize(("random", "factor"), [(0.0, 0.8), (0.25, 0.9), (0.75, 1.1)])
def test_rungs_are_jittered(random, factor):
    assert delay(step(OutcomeKind.TEMPORARY, 2, random=random)) == pytest.approx(300 * factor)


@pytest.mark.parametrize("kind", [OutcomeKind.TEMPORARY, OutcomeKind.THROTTLED])
def test_behind_the_last_rung_the_delivery_has_failed(kind):
    assert step(kind, len(LADDER_SECONDS)).state is DeliveryState.PENDING
    assert step(kind, len(LADDER_SECONDS) + 1).state is DeliveryState.FAILED
    assert step(kind, len(LADDER_SECONDS) + 7).state is DeliveryState.FAILED


def test_a_permanent_answer_gets_one_more_look_some_minutes_later():
    first = step(OutcomeKind.PERMANENT, 1)
    assert (first.state, delay(first)) == (DeliveryState.PENDING, 300)
    assert step(OutcomeKind.PERMANENT, 2).state is DeliveryState.FAILED


@pytest.mark.parametrize(
    ("last_status", "state"),
    [(404, "failed"), (301, "failed"), (503, "pending"), (429, "pending"), (None, "pending")],
)
def test_a_permanent_answer_is_believed_when_the_one_before_was_permanent_too(last_status, state):
    """Whoever deploys answers 503, then 404, then 200."""
    decided = step(OutcomeKind.PERMANENT, 3, status=404, last_status=last_status)
    assert decided.state == state


def test_the_second_look_of_a_short_ladder_comes_as_soon_as_its_rungs_say():
    for ladder, seconds in [((1.0, 2.0, 5.0), 2.0), ((7.0,), 7.0)]:
        decided = step(OutcomeKind.PERMANENT, 1, policy=RetryPolicy(ladder_seconds=ladder))
        assert delay(decided) == seconds
    assert step(OutcomeKind.PERMANENT, 1, policy=RetryPolicy(ladder_seconds=())).state == "failed"


def test_gone_fails_at_once_and_disables_the_destination():
    decided = step(OutcomeKind.GONE, 1)
    assert decided.state is DeliveryState.FAILED
    assert decided.disable_destination
    others = [OutcomeKind.SUCCESS, OutcomeKind.TEMPORARY, OutcomeKind.THROTTLED]
    for kind, attempts in itertools.product([*others, OutcomeKind.PERMANENT], [1, 2, 20]):
        assert not step(kind, attempts).disable_destination


@pytest.mark.parametrize(
    ("attempts", "asked", "seconds"),
    [
        (1, 60, 66),  # later than the rung; spread upwards only
        (1, 1, 5),  # sooner than the rung: the rung stands
        (3, 60, 1800),
        (2, 10**9, 24 * 3600 * 1.1),  # no receiver can ask for years
        (1, None, 5),
        (1, 0, 5),
    ],
)
def test_retry_after_is_heeded_within_bounds(attempts, asked, seconds):
    decided = step(OutcomeKind.THROTTLED, attempts, retry_after=asked)
    assert delay(decided) == pytest.approx(seconds)


def test_no_attempt_is_planned_beyond_the_maximum_age():
    young, old = timedelta(days=4, hours=23, minutes=54), timedelta(days=4, hours=23, minutes=56)
    assert step(OutcomeKind.TEMPORARY, 2, age=young).state is DeliveryState.PENDING
    assert step(OutcomeKind.TEMPORARY, 2, age=old).state is DeliveryState.FAILED


def test_a_policy_of_one_attempt_makes_one():
    policy = RetryPolicy(ladder_seconds=())
    assert step(OutcomeKind.TEMPORARY, 1, policy=policy).state is DeliveryState.FAILED
