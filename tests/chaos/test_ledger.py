"""What a run takes for a fault, and what not; real processes are in test_chaos.py."""

from __future__ import annotations

import pytest

from tests.chaos.ledger import Ledger, Outcome, fault_of_stored
from tests.chaos.plan import LEAST_FAULTS, POSSIBILITIES, Kind, draw

A, D, R = Outcome.ACCEPTED, Outcome.DOUBTFUL, Outcome.REFUSED


def sent(*versions, together=False):
    """Return one id's history: a version and what the client was told, one behind the other."""
    ledger = Ledger()
    documents = [("a", version) for version, _ in versions]
    requests = [documents] if together else [[one] for one in documents]
    outcomes = iter(outcome for _, outcome in versions)
    for request in requests:
        for one in ledger.begin(request, "web-1"):
            ledger.end(one, next(outcomes))
    return ledger.all()["a"]


@pytest.mark.parametrize(
    ("history", "stored", "fault"),
    [
        ([(0, A)], (1, 0), None),
        ([(0, A)], None, "nothing is stored"),
        ([(0, D)], None, None),
        ([(0, D)], (1, 0), None),
        ([(0, R)], (1, 0), "was refused"),
        ([(0, A)], (7, 0), "nobody sent"),
        ([(3, A)], (1, 0), "stored as 0"),
        ([(2, A), (1, A)], (1, 2), None),
        ([(2, A), (1, A)], (2, 1), "is newer"),
        ([(2, D), (1, A)], (2, 1), None),
        ([(2, D), (1, A)], (1, 2), None),
        ([(2, A), (0, A)], (2, 0), "is newer"),
        ([(0, A), (0, A)], (2, 0), None),
        ([(0, A), (0, A)], (1, 0), "is newer"),
        # Its append may have been on its way for longer than the other took.
        ([(0, D), (0, A)], (1, 0), None),
        ([(0, A), (0, D)], (1, 0), None),
    ],
)
def test_what_was_accepted_is_stored_at_its_newest_version(history, stored, fault):
    found = fault_of_stored(sent(*history), stored)
    assert found is None if fault is None else fault in found


def test_the_later_of_a_request_wins_and_of_two_at_once_either_may():
    assert "is newer" in fault_of_stored(sent((0, A), (0, A), together=True), (1, 0))
    assert fault_of_stored(sent((0, A), (0, A), together=True), (2, 0)) is None
    ledger = Ledger()
    (first,), (second,) = ledger.begin([("a", 0)], "web-1"), ledger.begin([("a", 0)], "web-2")
    ledger.end(first, A)
    ledger.end(second, A)
    assert fault_of_stored([first, second], (1, 0)) is None
    assert fault_of_stored([first, second], (2, 0)) is None


def test_a_seed_draws_the_same_faults_again_and_twenty_draw_all_kinds():
    assert draw(7, 60) == draw(7, 60) != draw(8, 60)
    plans = [draw(seed, 60) for seed in range(20)]
    assert all(len(plan) >= LEAST_FAULTS for plan in plans)
    assert {fault.kind for plan in plans for fault in plan} == set(Kind) == set(POSSIBILITIES)
    for fault in (fault for plan in plans for fault in plan):
        assert fault.at_seconds + fault.lasts_seconds <= 60
        assert fault.target in POSSIBILITIES[fault.kind].targets
