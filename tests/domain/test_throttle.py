"""What one holder leaves to the next: limit, reason and the debt of the rate cap."""

import pytest

from app.domain.concurrency import Bounds
from app.domain.deliveries import Outcome, OutcomeKind
from app.domain.throttle import Throttle, ThrottleState

FINE = Outcome(kind=OutcomeKind.SUCCESS, status=200, duration_seconds=0.05)


def make(state=None, *, bounds=None, per_second=None, handed_over=True, now=0.0):
    throttle = Throttle(Bounds(max=1000), state=state, handed_over=handed_over, now=now)
    throttle.configure(bounds or Bounds(max=50), per_second, now)
    return throttle


def begin_all(throttle, now):
    places = []
    while place := throttle.acquire(now):
        places.append(place)
    return places


def test_the_next_holder_keeps_the_limit_and_says_why():
    first = make(bounds=Bounds(min=1, max=8))
    now = 0.0
    for _ in range(200):
        places = begin_all(first, now)
        now += 0.05
        for place in places:
            first.release(place, FINE, now)
    assert first.limit == 8
    state = first.state(now)
    assert (state.limit, "most that is allowed" in state.reason) == (8, True)
    second = make(state, bounds=Bounds(min=1, max=8), now=5000.0)
    assert len(begin_all(second, 5000.0)) == 8


def test_other_bounds_count_at_once():
    throttle = make(bounds=Bounds(min=20, max=20))
    assert len(begin_all(throttle, 0.0)) == 20
    throttle.configure(Bounds(min=2, max=4), None, 1.0)
    assert throttle.acquire(1.0) == 0
    assert throttle.limit <= 4


@pytest.mark.parametrize(("handed_over", "begun"), [(True, 1), (False, 0)])
def test_behind_a_holder_that_went_silent_its_last_second_is_taken_for_used(handed_over, begun):
    state = ThrottleState(limit=5, reason="", memory=None, debt_seconds=0.0)
    throttle = make(state, bounds=Bounds(min=1, max=1), per_second=2, handed_over=handed_over)
    assert len(begin_all(throttle, 0.0)) == begun
    assert throttle.wait_seconds(0.0) is None if begun else throttle.wait_seconds(0.0) > 0


def test_the_debt_goes_from_holder_to_holder():
    first = make(bounds=Bounds(min=50, max=50), per_second=3)
    begun = len(begin_all(first, 0.0))
    assert 1 <= begun <= 3
    second = make(first.state(0.0), bounds=Bounds(min=50, max=50), per_second=3, now=900.0)
    assert len(begin_all(second, 900.0)) == 0
    assert 0 < second.wait_seconds(900.0) <= 1.1


def test_a_place_without_a_request_gives_its_share_of_the_rate_back():
    throttle = make(per_second=1)
    place = throttle.acquire(0.0)
    throttle.release(place, None, 0.0)
    assert throttle.acquire(0.0)


def test_a_cap_that_is_removed_holds_nothing_up():
    throttle = make(bounds=Bounds(min=50, max=50), per_second=1)
    begin_all(throttle, 0.0)
    throttle.configure(Bounds(min=50, max=50), None, 0.1)
    assert throttle.acquire(0.1)
