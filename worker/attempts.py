"""One attempt by webhook: the body, the request, and what is to be recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC

import orjson

from app.domain.batches_out import batch_id, together, with_id
from app.domain.cloudevents_out import BATCH as CLOUDEVENTS_BATCH
from app.domain.cloudevents_out import DEFAULT_SOURCE, Event, binary, structured
from app.domain.deliveries import Outcome, OutcomeKind, RetryPolicy
from app.domain.destinations import Body, Destination
from app.domain.envelopes import (
    DOCUMENT_CLASSIFIED,
    JSON,
    DocumentData,
    Payload,
    document_classified,
    operational_event,
    raw,
    webhook_id,
)
from app.domain.text import clean
from app.storage.deliveries import DeliveryKey, DeliveryResult
from app.storage.due import DueDelivery
from worker.conclusions import Attempted, Conclusions
from worker.sender import Sender
from worker.targets import Target, Targets

_CLOUDEVENTS: dict[Body, Callable[[Event], Payload]] = {
    "cloudevents": structured,
    "cloudevents-binary": binary,
}


class Attempts:
    """Makes attempts over one sender; implements ``Attempting``."""

    def __init__(self, sender: Sender, targets: Targets, conclusions: Conclusions) -> None:
        self.conclusions = conclusions
        self._sender = sender
        self._targets = targets

    def prepare(self, destination: Destination) -> Target:
        """Prepare a destination.

        Raises:
            TargetUnusable: its secret or its credentials cannot be used.
            ValueError: it is a collector.
        """
        if destination.kind != "webhook":
            message = f"a {destination.kind} is not served by this process"
            raise ValueError(message)
        return self._targets.of(destination)

    async def make(
        self,
        due: DueDelivery,
        target: Target,
        policy: RetryPolicy,
        resume: Callable[[], None],  # noqa: ARG002  (a request never waits for another)
    ) -> Attempted:
        """Send a delivery once; never raises but when it is cancelled."""
        try:
            outcome = await self._sender.send(
                # Kept by nobody else: it may be large, and its request be under way for long.
                target,
                _webhook_id(due),
                payload_of(due, target.body, target.source),
            )
        except (orjson.JSONEncodeError, ValueError, RecursionError) as error:
            outcome = Outcome(kind=OutcomeKind.PERMANENT, error=clean(f"no JSON: {error}"))
        return self.conclusions.conclude(due, outcome, policy)

    async def make_together(
        self, unit: Sequence[DueDelivery], target: Target, policy: RetryPolicy
    ) -> list[Attempted]:
        """Send several deliveries in one request; never raises but when it is cancelled."""
        try:
            outcome = await self._sender.send(
                target, batch_id(map(_webhook_id, unit)), payload_of_batch(unit, target)
            )
        except (orjson.JSONEncodeError, ValueError, RecursionError) as error:
            outcome = Outcome(kind=OutcomeKind.PERMANENT, error=clean(f"no JSON: {error}"))
        moment = self.conclusions.moment()
        return [self.conclusions.conclude(due, outcome, policy, moment=moment) for due in unit]

    def abandon(self, keys: Sequence[DeliveryKey]) -> None:
        """No request waits for another delivery."""

    def recorded(self, results: Sequence[DeliveryResult]) -> None:
        """Nor does one hear of others."""


def payload_of(due: DueDelivery, body: Body, source: str = DEFAULT_SOURCE) -> Payload:
    """Return what a delivery carries: the same for every attempt at the same content.

    Args:
        due: with the content.
        body: its form.
        source: who says so, for CloudEvents.
    """
    planned_at = due.created_at.astimezone(UTC)
    if due.event_type is not None:
        if form := _CLOUDEVENTS.get(body):
            data = orjson.Fragment(due.content)
            return form(Event(source, _webhook_id(due), due.event_type, None, planned_at, data))
        return operational_event(due.event_type, due.key.document_id, planned_at, due.content)
    if body == "raw":
        return raw(due.content)
    document = _document(due)
    if form := _CLOUDEVENTS.get(body):
        subject = str(due.key.document_id)
        return form(
            Event(source, _webhook_id(due), DOCUMENT_CLASSIFIED, subject, planned_at, document)
        )
    return document_classified(planned_at, document)


def _document(due: DueDelivery) -> DocumentData:
    return DocumentData(
        id=due.key.document_id,
        version=due.version,
        created_at=due.document_created_at.astimezone(UTC),
        updated_at=due.document_updated_at.astimezone(UTC),
        category=due.category,
        confidence=due.confidence,
        model_version=due.model_version,
        content=due.content,
        topics=_as_stored(due.topics_json),
        attributes=_as_stored(due.attributes_json),
    )


def _as_stored(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


def payload_of_batch(unit: Sequence[DueDelivery], target: Target) -> Payload:
    """Return what several deliveries carry together."""
    bodies = [payload_of(due, target.body, target.source).body for due in unit]
    if target.body != "envelope":
        return together(bodies, target.batch_format, CLOUDEVENTS_BATCH)
    parts = [
        # An operational event has an id of its own already.
        body if due.event_type else with_id(_webhook_id(due), body)
        for due, body in zip(unit, bodies, strict=True)
    ]
    return together(parts, target.batch_format, JSON)


def _webhook_id(due: DueDelivery) -> str:
    return webhook_id(due.key.document_id, due.key.seq, due.key.generation)
