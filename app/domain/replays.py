"""Replays: which ended deliveries may be planned anew.

A replay is a new plan generation of the same version for the same destination, with a webhook-id of
its own: the receiver is meant to take it again.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.deliveries import DeliveryState

OPEN = (DeliveryState.PENDING, DeliveryState.HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFacts:
    """What is known of a delivery that is to be replayed.

    Attributes:
        newest_generation: of the deliveries of this version to this destination.
        newest_state: of that one.
        stored: the document, or the event, is still there.
        current: and at this version.
        destination_deleted: nobody is there to get it.
    """

    newest_generation: int
    newest_state: DeliveryState
    stored: bool
    current: bool
    destination_deleted: bool


def why_no_replay(facts: ReplayFacts) -> str | None:
    """Say why a delivery cannot be replayed; None when it can."""
    if facts.newest_state in OPEN:
        return f"it is still {facts.newest_state}, and will be delivered without a replay"
    if facts.destination_deleted:
        return "its destination was deleted"
    if not facts.stored:
        return "what it delivered is not stored any more"
    if not facts.current:
        return "a newer version of the document has replaced the one that it delivered"
    return None
