"""Routers of the user's own: a class with one method, named by ``ROUTER=package.module:Class``.

::

    class ByCustomer:
        async def route(self, document, prediction, destinations):
            hook = await look_up(document.attributes["customer"])
            return [RouteTo("archive", "everything is archived"), RouteTo(hook, "their own hook")]

``route`` may be a coroutine function or not. It returns a list of ``RouteTo``, of pairs, or of bare
targets; an empty list for nobody. What it raises, and what it returns that makes no sense, leaves
the document stored and not routed; it is asked again later.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple, Protocol, runtime_checkable

from app.domain.destinations import Destination
from app.domain.errors import DestinationUrlRefused, RouterFailed
from app.domain.predictions import Prediction
from app.domain.routing import Route
from app.domain.text import text_fault
from app.domain.urls import normalised_url

DEFAULT_REASON = "chosen by the router"
MAX_REASON_LENGTH = 500

Target = Destination | uuid.UUID | str
"""A destination that was given, its id, its key, or a URL that nobody registered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedDocument:
    """A document as it is stored, for a router to read. None in a field: it was never sent."""

    id: uuid.UUID
    version: int
    content: str
    topics: list[str] | None
    keys: list[str] | None
    delivery: str | None
    priority: int | None
    attributes: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, stored: Any) -> RoutedDocument:
        """Return the same of anything with these attributes: a row, a document just stored."""
        return cls(**{field.name: getattr(stored, field.name) for field in fields(cls)})


class RouteTo(NamedTuple):
    """One destination of a document; the reason is stored and shown to people."""

    target: Target
    reason: str = DEFAULT_REASON


Answer = Iterable[RouteTo | Route | tuple[Target, str] | Target]


@runtime_checkable
class Router(Protocol):
    """What a class needs to be a router. One instance per process, made without arguments."""

    def route(
        self,
        document: RoutedDocument,
        prediction: Prediction | None,
        destinations: Sequence[Destination],
    ) -> Answer | Awaitable[Answer]:
        """Choose the destinations of a document.

        Args:
            document: as it is stored.
            prediction: None while no model has classified it.
            destinations: the enabled ones, in the order of their ids.
        """


class Chosen(NamedTuple):
    """What a router's answer comes to.

    Attributes:
        routes: to destinations that are registered and enabled.
        urls: normalised URLs that nobody registered, with their reasons.
    """

    routes: Sequence[Route]
    urls: dict[str, str]


def read_answer(answer: object, destinations: Iterable[Destination]) -> Chosen:
    """Make routes of what a router returned.

    Names of destinations that are not there (any more) are passed over: a destination that
    somebody disables must not hold up documents that have others.

    Raises:
        RouterFailed: it is not a list of routes; says what it is instead.
    """
    if isinstance(answer, str | bytes | dict) or not isinstance(answer, Iterable):
        raise RouterFailed(f"it returned {_kind(answer)} and not a list of routes")
    known: dict[object, Destination] = {}
    for destination in destinations:
        known[destination.id] = known[destination.key] = destination
    routes: dict[uuid.UUID, Route] = {}
    urls: dict[str, str] = {}
    for element in answer:
        target, reason = _read(element)
        if isinstance(target, str) and "://" in target:
            urls.setdefault(_url(target), reason)
        elif (found := known.get(target)) is not None:
            routes.setdefault(found.id, Route.to(found, reason))
    return Chosen(list(routes.values()), urls)


def _read(element: object) -> tuple[object, str]:
    target: object = element
    reason: object = DEFAULT_REASON
    if isinstance(element, Route):
        target, reason = element.destination_id, element.reason
    elif isinstance(element, tuple) and len(element) == 2:  # noqa: PLR2004  (a pair)
        target, reason = element
    if isinstance(target, Destination):
        target = target.id
    if not isinstance(target, str | uuid.UUID):
        raise RouterFailed(f"it routed to {_kind(target)}, which is no key, id or URL")
    if not isinstance(reason, str):
        raise RouterFailed(f"it gave {_kind(reason)} as a reason and not a string")
    if fault := text_fault(reason):
        raise RouterFailed(f"it gave a reason that {fault}")
    return target, reason[:MAX_REASON_LENGTH]


def _url(target: str) -> str:
    try:
        return normalised_url(target)
    except DestinationUrlRefused as error:
        raise RouterFailed(f"it routed to a URL that {error.violations[0].detail}") from None


def _kind(value: object) -> str:
    return type(value).__name__
