"""The controller against modelled receivers, in simulated time, under endless load.

From limit 1; what is asserted is what happens after 30 s. The best constant limit is found by
simulating several.
"""

from itertools import pairwise

import pytest

from app.domain.adaptive import AdaptiveConcurrency
from app.domain.concurrency import Bounds, FixedConcurrency
from tests.domain.simulation import (
    Dead,
    Failing,
    Knee,
    Quick,
    RateLimited,
    Slower,
    Thrashing,
    Throttling,
    lognormal,
    outliers,
    pareto,
    simulate,
)

LEARNT = 30.0
END = 60.0
SEEDS = (1, 2, 3)
CHANCY = ("jitter", "tail", "outliers")
CONSTANTS = (1, 3, 5, 10, 20, 40, 50)


def run(receiver, *, seed=1, seconds=END, most=50, least=1):
    concurrency = AdaptiveConcurrency(Bounds(min=least, max=most), now=0.0)
    return concurrency, simulate(concurrency, receiver, seconds=seconds, seed=seed)


def seeds_of(name):
    """A model without chance is the same every time."""
    return SEEDS if any(word in name for word in CHANCY) else SEEDS[:1]


def best_constant_rate(make, *, most):
    """Successes a second of the best constant limit, once it has settled."""
    best = 0.0
    for limit in {min(limit, most) for limit in CONSTANTS}:
        ran = simulate(FixedConcurrency(limit), make(), seconds=12, seed=9)
        best = max(best, ran.between(4, 12).successes / 8)
    return best


QUICK = {
    "constant 5 ms": (lambda: Quick(0.005), 5),
    "constant 100 ms": (lambda: Quick(0.1), 50),
    "constant 2 s": (lambda: Quick(2.0), 50),
    "jittery 20 ms": (lambda: Quick(0.02, lognormal(0.5)), 20),
    "jittery 200 ms": (lambda: Quick(0.2, lognormal(0.5)), 50),
    "very jittery 200 ms": (lambda: Quick(0.2, lognormal(1.0)), 50),
    "heavy tail 100 ms": (lambda: Quick(0.1, pareto(1.5)), 50),
    "outliers 200 ms": (lambda: Quick(0.2, outliers(0.02, 20)), 50),
}
KNEES = {
    "knee at 10, 10 ms": (lambda: Knee(0.01, 10), 0.01, 50),
    "knee at 3, 100 ms": (lambda: Knee(0.1, 3), 0.1, 50),
    "knee at 10, 100 ms": (lambda: Knee(0.1, 10), 0.1, 50),
    "knee at 40, 500 ms": (lambda: Knee(0.5, 40), 0.5, 50),
    "knee at 10, 2 s": (lambda: Knee(2.0, 10), 2.0, 50),
    "thrashing beyond 10, 100 ms": (lambda: Thrashing(0.1, 10), 0.1, 50),
    "jittery knee at 10, 100 ms": (lambda: Knee(0.1, 10, lognormal(0.3)), 0.105, 50),
    "very jittery knee at 20, 50 ms": (lambda: Knee(0.05, 20, lognormal(0.5)), 0.0567, 50),
}
THROTTLES = {
    "429 above 3, 50 ms": (lambda: Throttling(Quick(0.05), 3), 50),
    "429 above 10, 20 ms": (lambda: Throttling(Quick(0.02), 10), 50),
    "429 above 10, 2 s": (lambda: Throttling(Quick(2.0), 10, refusal_seconds=0.05), 50),
    "slow 429 above 20, 200 ms": (lambda: Throttling(Quick(0.2), 20, refusal_seconds=0.2), 50),
    "429 above 10, jittery": (lambda: Throttling(Quick(0.1, lognormal(0.5)), 10), 50),
    "429 above 20, knee at 10": (lambda: Throttling(Knee(0.1, 10), 20), 50),
    "503 above 10, 100 ms": (lambda: Throttling(Quick(0.1), 10, status=503), 50),
}


@pytest.mark.parametrize("name", QUICK)
def test_a_receiver_without_a_limit_gets_nearly_all_that_is_allowed(name):
    make, most = QUICK[name]
    best = best_constant_rate(make, most=most)
    for seed in seeds_of(name):
        _, ran = run(make(), seed=seed, most=most)
        assert ran.between(LEARNT, END).successes / (END - LEARNT) >= 0.8 * best


@pytest.mark.parametrize("name", KNEES)
def test_a_receiver_with_a_knee_is_kept_busy_and_not_made_slow(name):
    make, unhurried, most = KNEES[name]
    best = best_constant_rate(make, most=most)
    for seed in seeds_of(name):
        _, ran = run(make(), seed=seed, most=most)
        assert ran.between(LEARNT, END).successes / (END - LEARNT) >= 0.8 * best
        for window in ran.windows(LEARNT, END):
            assert window.mean_latency <= 2 * unhurried


@pytest.mark.parametrize("name", THROTTLES)
def test_a_throttling_receiver_is_used_to_the_full_and_hardly_refuses(name):
    make, most = THROTTLES[name]
    best = best_constant_rate(make, most=most)
    for seed in seeds_of(name):
        _, ran = run(make(), seed=seed, most=most)
        assert ran.between(LEARNT, END).successes / (END - LEARNT) >= 0.8 * best
        for window in ran.windows(LEARNT, END):
            assert window.error_share <= 0.05


DEATHS = {
    "refuses connections": (lambda: Quick(0.1), 0.001),
    "hangs": (lambda: Quick(0.1), 15.0),
    "a throttling one refuses connections": (lambda: Throttling(Quick(0.1), 10), 0.001),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_dead_minute_is_not_hammered_and_soon_over(name):
    make, seconds = DEATHS[name]
    _, ran = run(Dead(make(), 30, 90, seconds), seconds=130)
    before = ran.between(20, 30).successes
    began = [one for one in ran.ended if 30 <= one.began_at < 90]
    in_flight = max(limit for at, limit in ran.limits if at < 30)
    # What was in flight, a few to be sure, and a request now and then.
    assert len(began) <= 2 * in_flight + 40
    assert len([one for one in began if one.began_at >= 35 + 2 * seconds]) <= 20
    assert ran.between(110, 120).successes >= 0.95 * before


def test_a_dead_receiver_is_asked_less_often_the_longer_it_is_dead():
    _, ran = run(Dead(Quick(0.1), 0, 7200, 0.001), seconds=7200)
    asked = [one.began_at for one in ran.ended]
    assert max(after - before for before, after in pairwise(asked)) <= 60.1
    assert len(ran.between(0, 60).ended) <= 40
    assert len(ran.between(3600, 7200).ended) <= 61


@pytest.mark.parametrize(
    ("status", "share"), [(500, 0.5), (404, 0.5), (503, 0.01), (502, 0.02)], ids=str
)
def test_failures_that_no_load_explains_do_not_throttle(status, share):
    for seed in SEEDS:
        _, ran = run(Failing(Quick(0.1), share, status), seed=seed)
        assert len(ran.between(LEARNT, END).ended) / (END - LEARNT) >= 0.8 * 50 / 0.1


def test_it_learns_that_one_answer_in_ten_fails_whatever_the_load():
    _, ran = run(Failing(Quick(0.05), 0.1, 503))
    assert len(ran.between(LEARNT, END).ended) / (END - LEARNT) >= 0.8 * 50 / 0.05


@pytest.mark.parametrize(
    ("per_second", "seconds"), [(10, 0.005), (10, 0.05), (1, 0.05), (50, 0.005), (1, 0.5)]
)
def test_a_receiver_that_takes_so_many_a_second_is_found_even_below_one_at_a_time(
    per_second, seconds
):
    _, ran = run(RateLimited(Quick(seconds), per_second, burst=1), seconds=120)
    late = ran.between(60, 120)
    assert late.successes >= 0.7 * 60 * per_second
    assert late.error_share <= 0.06


def test_a_receiver_that_becomes_slower_by_itself_keeps_its_limit():
    concurrency, ran = run(Slower(Quick(0.05, lognormal(0.3)), 30, 3), seconds=60)
    assert ran.between(40, 60).successes / 20 >= 0.8 * 50 / 0.15
    assert concurrency.limit == 50


def test_a_knee_is_found_again_when_the_receiver_becomes_slower():
    _, ran = run(Slower(Knee(0.05, 10), 30, 3), seconds=120)
    for window in ran.windows(90, 120):
        assert window.mean_latency <= 2 * 0.15


def test_a_quick_receiver_gets_its_limit_within_a_second():
    _, ran = run(Quick(0.05), seconds=1)
    assert max(limit for _, limit in ran.limits) == 50


def test_bounds_are_kept_and_the_same_one_twice_fixes_the_limit():
    concurrency, ran = run(Throttling(Quick(0.05), 10), least=5, most=8)
    assert {limit for _, limit in ran.limits} <= set(range(5, 9))
    assert concurrency.limit == 8
    concurrency, ran = run(Throttling(Quick(0.05), 10, refusal_seconds=0.05), least=20, most=20)
    assert {limit for _, limit in ran.limits} == {20}
    assert concurrency.reason == "fixed"


REASONS = {
    "no sign of trouble; this is the most that is allowed": lambda: Quick(0.05),
    "with 11 at a time: HTTP 429": lambda: Throttling(Quick(0.05), 10),
    "at a time answers took": lambda: Knee(0.1, 10),
    "one request every 5 s: no connection": lambda: Dead(Quick(0.1), 20, 999, 0.001),
}


@pytest.mark.parametrize("sentence", REASONS)
def test_the_reason_says_why_the_limit_stands_where_it_does(sentence):
    concurrency, _ = run(REASONS[sentence](), seconds=50)
    assert sentence in concurrency.reason


def test_what_was_learnt_survives_a_restart():
    receiver = Throttling(Quick(0.05), 10)
    first, _ = run(receiver, seconds=30)
    memory = first.remember(30.0).model_dump_json()
    again = AdaptiveConcurrency.recall(
        Bounds(), type(first.remember(30.0)).model_validate_json(memory), now=1000.0
    )
    assert (again.limit, again.reason) == (10, first.reason)
    ran = simulate(again, Throttling(Quick(0.05), 10), seconds=30, start=1000.0)
    assert ran.successes >= 0.95 * 30 * 10 / 0.05
    assert ran.error_share <= 0.01


def test_a_pause_survives_a_restart():
    first, _ = run(Dead(Quick(0.05), 0, 60, 0.001), seconds=20)
    again = AdaptiveConcurrency.recall(Bounds(), first.remember(20.0), now=0.0)
    assert again.limit == 1
    assert "one request every" in again.reason
    ran = simulate(again, Dead(Quick(0.05), 0, 20, 0.001), seconds=30)
    assert len(ran.between(0, 20).ended) <= 6
    assert ran.between(26, 30).successes >= 0.8 * 4 * 50 / 0.05


def test_places_in_which_no_request_was_made_teach_nothing():
    concurrency = AdaptiveConcurrency(Bounds(), now=0.0)
    for _ in range(100):
        place = concurrency.acquire(0.0)
        assert not concurrency.acquire(0.0)
        concurrency.release(place, None, 0.0)
    assert concurrency.limit == 1
