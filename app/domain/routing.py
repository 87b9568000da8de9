"""Which destinations get a document, and why.

One function decides for everybody: ingest, replay and preview ask it, and store or show its
reasons. It is given what it may look at and touches nothing else. The document chooses
(``app.domain.choice``), then each destination takes what it wants (``app.domain.admission``).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import NamedTuple, Self

from app.domain.admission import Admission, facts_of
from app.domain.choice import Choice, Routable, choice_of, why_nobody, why_not_addressed
from app.domain.destinations import Destination
from app.domain.documents import DEFAULT_PRIORITY
from app.domain.predictions import Prediction
from app.domain.routing_index import AdmissionIndex
from app.domain.topics import Subscription, TopicTree


class Route(NamedTuple):
    """One document for one destination.

    Attributes:
        reason: stored and shown to people.
        by_priority: whether the destination takes the most urgent first, see ``rank``.
    """

    destination_id: uuid.UUID
    reason: str
    by_priority: bool = False

    @classmethod
    def to(cls, destination: Destination, reason: str) -> Self:
        """Return the route to a destination."""
        return cls(destination.id, reason, destination.queue == "priority")

    def rank(self, priority: int | None) -> int:
        """Return the place of a document of this priority in the destination's queue.

        What has the same rank goes by its age; that is everything where priorities do not count.
        """
        if not self.by_priority:
            return 0
        return DEFAULT_PRIORITY if priority is None else priority


class Verdict(NamedTuple):
    """What was decided about one destination."""

    destination_id: uuid.UUID
    routed: bool
    reason: str


class RoutingTable:
    """Destinations, compiled: made once per configuration, asked for every document.

    What it costs to ask grows with the destinations that match, hardly with those that do not.
    """

    def __init__(self, destinations: Iterable[Destination]) -> None:
        """Compile destinations; those that take no documents now are only explained."""
        self.destinations = tuple(destinations)
        self._admissions = [Admission(one) for one in self.destinations]
        enabled = [place for place, one in enumerate(self.destinations) if why_out(one) is None]
        self._by_key: dict[str, int] = {}
        self._topics = TopicTree()
        for place in enabled:
            self._by_key[self.destinations[place].key] = place
            for pattern in self.destinations[place].topics:
                self._topics.add(pattern, place)
        self._index = AdmissionIndex({place: self._admissions[place] for place in enabled})
        # Installations whose destinations take everything are common, and need no looking up.
        self._everybody = (
            [Route.to(self.destinations[place], "broadcast") for place in enabled]
            if all(self._admissions[place].open for place in enabled)
            else None
        )

    def routes(self, document: Routable, prediction: Prediction | None) -> list[Route]:
        """Return the routes of a document, in the order of the destinations.

        Args:
            document: as it is stored.
            prediction: None while no model has classified it.
        """
        choice = choice_of(document)
        if choice.broadcast and self._everybody is not None:
            return list(self._everybody)
        facts = facts_of(document, prediction)
        addressed = self._addressed(choice)
        found: set[int] = set()
        for takers in self._index.candidates(facts):
            if addressed.broadcast:
                found.update(takers)
            else:
                for members in addressed.groups:
                    found.update(members.intersection(takers))
        return [
            Route.to(self.destinations[place], addressed.reason(place) + admission.grounds(facts))
            for place in sorted(found)
            if (admission := self._admissions[place]).refusal(facts) is None
        ]

    def explain(self, document: Routable, prediction: Prediction | None) -> list[Verdict]:
        """Say of every destination whether it gets a document, and why or why not."""
        facts = facts_of(document, prediction)
        choice = choice_of(document)
        addressed = self._addressed(choice)
        reached = set().union(*addressed.groups)
        verdicts = []
        for place, (destination, admission) in enumerate(
            zip(self.destinations, self._admissions, strict=True)
        ):
            if out := why_out(destination):
                refusal: str | None = out
            elif not addressed.broadcast and place not in reached:
                refusal = why_not_addressed(choice, destination)
            else:
                refusal = admission.refusal(facts)
            if refusal is None:
                reason = addressed.reason(place) + admission.grounds(facts)
                verdicts.append(Verdict(destination.id, routed=True, reason=reason))
            else:
                verdicts.append(Verdict(destination.id, routed=False, reason=refusal))
        return verdicts

    def why_nobody(self, document: Routable, prediction: Prediction | None) -> str | None:
        """Say in a sentence why a document has no routes; None when it has."""
        if self.routes(document, prediction):
            return None
        choice = choice_of(document)
        addressed = self._addressed(choice)
        enabled = sum(why_out(one) is None for one in self.destinations)
        reached = len(set().union(*addressed.groups))
        return why_nobody(
            choice, enabled=enabled, reached=enabled if addressed.broadcast else reached
        )

    def _addressed(self, choice: Choice) -> _Addressed:
        named = {
            place: f"key {key!r} was named"
            for key in choice.keys or ()
            if (place := self._by_key.get(key)) is not None
        }
        subscribed = [
            (topic, subscription)
            for topic in choice.topics or ()
            for subscription in self._topics.find(topic)
        ]
        return _Addressed(choice.broadcast, named, subscribed)


def plan_routes(
    document: Routable,
    prediction: Prediction | None,
    destinations: Iterable[Destination],
) -> list[Route]:
    """Return the routes of a document; none is a fine answer.

    For one document. Who has many keeps a ``RoutingTable``.
    """
    return RoutingTable(destinations).routes(document, prediction)


def explain_routes(
    document: Routable,
    prediction: Prediction | None,
    destinations: Iterable[Destination],
) -> list[Verdict]:
    """Say of each destination whether it gets a document, and why or why not."""
    return RoutingTable(destinations).explain(document, prediction)


class _Addressed(NamedTuple):
    """The destinations that a document's choice reaches, by their places."""

    broadcast: bool
    named: dict[int, str]
    subscribed: list[tuple[str, Subscription]]

    @property
    def groups(self) -> list[set[int]]:
        """Who is reached, where it is not everybody."""
        return [set(self.named), *(members for _, (_, members) in self.subscribed)]

    def reason(self, place: int) -> str:
        """Say why one that is reached is reached."""
        if self.broadcast:
            return "broadcast"
        if place in self.named:
            return self.named[place]
        return next(
            f"topic {topic!r} fits {pattern!r}"
            for topic, (pattern, members) in self.subscribed
            if place in members
        )


def why_out(destination: Destination) -> str | None:
    """Say why a destination takes no document at all; None for one that may."""
    if not destination.enabled:
        reason = destination.disabled_reason
        return f"it is disabled: {reason}" if reason else "it is disabled"
    return None if destination.documents else "it takes operational events alone"
