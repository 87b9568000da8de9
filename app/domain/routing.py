"""Which destinations get a document, and why.

One function decides for everybody: ingest, replay and preview ask it, and store or show its
reasons. It is given what it may look at and touches nothing else.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from app.domain.destinations import Destination
from app.domain.predictions import Prediction


class Routable(Protocol):
    """What routing reads of a document; ``DocumentInput`` is one."""

    @property
    def delivery(self) -> str | None:
        """How destinations are chosen, None for the default."""

    @property
    def keys(self) -> Sequence[str] | None:
        """Destination keys that the client named."""


class Route(NamedTuple):
    """One document for one destination; ``reason`` is stored and shown to people."""

    destination_id: uuid.UUID
    reason: str


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
    if document.delivery == "key":
        named = set(document.keys or ())
        return [
            Route(one.id, f"key {one.key!r} was named") for one in destinations if one.key in named
        ]
    if document.delivery == "topic":
        return []  # No destination subscribes to topics.
    return [Route(one.id, "broadcast") for one in destinations]
