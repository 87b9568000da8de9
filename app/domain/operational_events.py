"""Operational events: what Docyard tells about its own work, to destinations that subscribe.

A destination's ``events`` are types, ``destination.*`` for all that begin so, or ``*`` for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

ALL = "*"


class OperationalEventType(StrEnum):
    """What there is to be told; ``docs/operational-events.md`` is the catalogue."""

    DESTINATION_FAILING = "destination.failing"
    DESTINATION_DISABLED = "destination.disabled"
    DESTINATION_RECOVERED = "destination.recovered"
    DELIVERY_EXHAUSTED = "delivery.exhausted"
    DESTINATION_TEST = "destination.test"


ON_REQUEST = OperationalEventType.DESTINATION_TEST
"""Sent to the destination that it is about, when somebody asks for it; nobody subscribes to it."""


def patterns_of(event_type: str) -> list[str]:
    """Return the entries of ``events`` that take this type, the most special first."""
    return [event_type, f"{event_type.partition('.')[0]}.*", ALL]


def subscription_fault(pattern: str) -> str | None:
    """Say why an entry of ``events`` takes nothing; None when it takes something."""
    subscribable = [one for one in OperationalEventType if one is not ON_REQUEST]
    if any(pattern in patterns_of(known) for known in subscribable):
        return None
    types = ", ".join(subscribable)
    return f"names no operational event; there are {types}, and patterns such as destination.* or *"


def reason_of(event_type: str, subscribed: Sequence[str]) -> str:
    """Say why a destination with these ``events`` gets one of this type."""
    pattern = next(one for one in patterns_of(event_type) if one in subscribed)
    return f"subscribes to {pattern!r}"
