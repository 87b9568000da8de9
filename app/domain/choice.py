"""How a document chooses its destinations: by its ``delivery``, or by what it gives.

========================  =========================================================================
``broadcast``             every destination; what happens when nothing is said
``key``                   destinations whose key is among its ``keys``
``topic``                 destinations that subscribe to a pattern which one of its ``topics`` fits
none, ``keys`` given      like ``key``
none, ``topics`` given    like ``topic``
none, both given          either: those named and those subscribed
========================  =========================================================================

An empty list is as good as none. With a mode that was said, the other list chooses nothing.
Whoever is reached so still decides what it takes: see ``app.domain.admission``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from app.domain.admission import Described
from app.domain.destinations import Destination

MOST_NAMES = 5
"""In a sentence."""


class Routable(Described, Protocol):
    """What routing reads of a document; ``DocumentInput`` is one."""

    @property
    def delivery(self) -> str | None:
        """How destinations are chosen, None for what keys and topics imply."""

    @property
    def keys(self) -> Sequence[str] | None:
        """Destination keys that the client named."""


class Choice(NamedTuple):
    """How a document chooses, with what was not said filled in.

    Attributes:
        broadcast: everybody; the others are None then.
        keys: None when keys choose nothing.
        topics: None when topics choose nothing.
    """

    broadcast: bool = False
    keys: Sequence[str] | None = None
    topics: Sequence[str] | None = None


def choice_of(document: Routable) -> Choice:
    """Return how a document chooses its destinations."""
    match document.delivery:
        case "broadcast":
            return Choice(broadcast=True)
        case "key":
            return Choice(keys=document.keys or ())
        case "topic":
            return Choice(topics=document.topics or ())
    if document.keys or document.topics:
        return Choice(keys=document.keys or None, topics=document.topics or None)
    return Choice(broadcast=True)


def why_not_addressed(choice: Choice, destination: Destination) -> str:
    """Say why a choice that is no broadcast does not reach a destination."""
    reasons = []
    if choice.keys is not None:
        reasons.append(
            f"its key {destination.key!r} is not named"
            if choice.keys
            else "delivery is by key, and the document names none"
        )
    if choice.topics is not None:
        if not choice.topics:
            reasons.append("delivery is by topic, and the document has none")
        elif destination.topics:
            reasons.append("no topic fits its patterns")
        else:
            reasons.append("it subscribes to no topics")
    return "; ".join(reasons)


def why_nobody(choice: Choice, *, enabled: int, reached: int) -> str:
    """Say why a document has no routes.

    Args:
        choice: of the document.
        enabled: how many destinations there are to choose from.
        reached: how many of them the choice reaches; none of those takes the document.
    """
    if not enabled:
        return "There is no enabled destination."
    if reached:
        return f"{reached} of {enabled} enabled destinations are reached, and none takes it."
    if not (choice.keys or choice.topics):
        return "The document says how to choose, and names nothing to choose by."
    wanted = []
    if choice.keys:
        wanted.append(f"has one of its keys ({_listed(choice.keys)})")
    if choice.topics:
        wanted.append(f"subscribes to one of its topics ({_listed(choice.topics)})")
    return f"No enabled destination {' or '.join(wanted)}."


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
