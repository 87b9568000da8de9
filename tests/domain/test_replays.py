from dataclasses import replace

import pytest

from app.domain.deliveries import DeliveryState
from app.domain.replays import ReplayFacts, why_no_replay

ENDED = ReplayFacts(
    newest_generation=0,
    newest_state=DeliveryState.FAILED,
    stored=True,
    current=True,
    destination_deleted=False,
)


@pytest.mark.parametrize("state", ["failed", "delivered", "cancelled", "superseded"])
def test_what_has_ended_may_be_replayed(state):
    assert why_no_replay(replace(ENDED, newest_state=DeliveryState(state))) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"newest_state": DeliveryState.PENDING}, "still pending"),
        ({"newest_state": DeliveryState.HELD}, "still held"),
        ({"destination_deleted": True}, "destination was deleted"),
        ({"stored": False, "current": False}, "not stored any more"),
        ({"current": False}, "newer version"),
    ],
)
def test_what_cannot_be_replayed_says_why(changes, reason):
    assert reason in why_no_replay(replace(ENDED, **changes))
