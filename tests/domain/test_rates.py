"""The rate cap, on a clock that only moves when it is told to."""

import bisect
import itertools
import random

import pytest

from app.domain.rates import LATE_SECONDS, RateCap


def starts(cap, *, seconds, late=lambda: 0.0):
    """Return when requests begin that are made as soon as the cap lets them, or a bit later."""
    now, found = 0.0, []
    while now < seconds:
        if wait := cap.wait_seconds(now):
            now += wait + late()
            continue
        cap.take(now)
        found.append(now)
    return found


def most_within(times, seconds):
    return max(
        bisect.bisect_left(times, begin + seconds) - number for number, begin in enumerate(times)
    )


@pytest.mark.parametrize("per_second", [1, 3, 20, 500])
def test_no_second_has_more_requests_than_the_cap_says(per_second):
    lateness = random.Random(7)  # noqa: S311  (repeatable, not secret)
    times = starts(
        RateCap(per_second, paid_at=0.0),
        seconds=20,
        late=lambda: lateness.random() * LATE_SECONDS,
    )
    assert most_within(times, 1 - 1e-9) <= per_second
    assert len(times) >= 0.9 * 20 * per_second


def test_a_cap_below_one_spaces_requests():
    times = starts(RateCap(0.25, paid_at=0.0), seconds=60)
    assert min(b - a for a, b in itertools.pairwise(times)) >= 4
    assert len(times) >= 14


def test_a_request_that_was_not_made_costs_nothing():
    cap = RateCap(1, paid_at=0.0)
    cap.take(0.0)
    assert cap.wait_seconds(0.0) > 0.9
    cap.give_back()
    assert cap.wait_seconds(0.0) == 0


def test_whoever_goes_on_elsewhere_takes_the_debt_along():
    first = RateCap(2, paid_at=0.0)
    times = starts(first, seconds=3)
    second = RateCap(2, paid_at=100.0 + first.debt_seconds(3.0))
    times += [one - 97.0 for one in starts_from(second, 100.0, seconds=3)]
    assert most_within(times, 1 - 1e-9) <= 2


def starts_from(cap, begin, *, seconds):
    now, found = begin, []
    while now < begin + seconds:
        if wait := cap.wait_seconds(now):
            now += wait
            continue
        cap.take(now)
        found.append(now)
    return found
