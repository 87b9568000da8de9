"""Which destinations get a document, and why.

One function decides for everybody: ingest, replay and preview ask it, and store or show its
reasons. It is given what it may look at and touches nothing else.

How a document chooses (``delivery``):

========================  =========================================================================
``broadcast``             every destination; what happens when nothing is said
``key``                   destinations whose key is among its ``keys``
``topic``                 destinations that subscribe to a pattern which one of its ``topics`` fits
none, ``keys`` given      like ``key``
none, ``topics`` given    like ``topic``
none, both given          either: those named and those subscribed
========================  =========================================================================

An empty list is as good as none. With a mode that was said, the other list chooses nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from app.domain.destinations import Destination
from app.domain.predictions import Prediction
from app.domain.topics import TopicTree


class Routable(Protocol):
    """What routing reads of a document; ``DocumentInput`` is one."""

    @property
    def delivery(self) -> str | None:
        """How destinations are chosen, None for what keys and topics imply."""

    @property
    def keys(self) -> Sequence[str] | None:
        """Destination keys that the client named."""

    @property
    def topics(self) -> Sequence[str] | None:
        """Dotted names that destinations subscribe to."""


class Route(NamedTuple):
    """One document for one destination; ``reason`` is stored and shown to people."""

    destination_id: uuid.UUID
    reason: str


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


def plan_routes(
    document: Routable,
    prediction: Prediction | None,  # noqa: ARG001  (what categories and thresholds are judged by)
    destinations: Iterable[Destination],
) -> list[Route]:
    """Return the routes of a document; none is a fine answer.

    Args:
        document: as it is stored.
        prediction: None while no model has classified it.
        destinations: the enabled ones.
    """
    choice = choice_of(document)
    if choice.broadcast:
        return [Route(one.id, "broadcast") for one in destinations]
    known = list(destinations)
    tree = TopicTree()
    for place, destination in enumerate(known):
        for pattern in destination.topics:
            tree.add(pattern, place)
    reasons: dict[int, str] = {}
    for topic in choice.topics or ():
        for pattern, members in tree.find(topic):
            for place in members:
                reasons.setdefault(place, f"topic {topic!r} fits {pattern!r}")
    named = set(choice.keys or ())
    for place, destination in enumerate(known):
        if destination.key in named:
            reasons[place] = f"key {destination.key!r} was named"
    return [Route(known[place].id, reason) for place, reason in sorted(reasons.items())]
