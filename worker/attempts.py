"""One attempt: the body, the request, and what is to be recorded."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from app.domain.cloudevents_out import DEFAULT_SOURCE, binary, structured
from app.domain.deliveries import (
    Attempt,
    DeliveryState,
    NextStep,
    Outcome,
    OutcomeKind,
    RetryPolicy,
    next_step,
)
from app.domain.destinations import Body
from app.domain.envelopes import (
    DocumentData,
    Payload,
    document_classified,
    operational_event,
    raw,
    webhook_id,
)
from app.storage.deliveries import DeliveryResult, DueDelivery
from worker.sender import Sender, clean
from worker.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """An attempt's end, with the step that follows from it."""

    outcome: Outcome
    step: NextStep
    result: DeliveryResult


def _now() -> datetime:
    return datetime.now(UTC)


class Attempts:
    """Makes attempts over one sender; ``policy`` is the usual one."""

    def __init__(
        self,
        sender: Sender,
        policy: RetryPolicy,
        *,
        now: Callable[[], datetime] = _now,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._sender = sender
        self.policy = policy
        self._now = now
        self._random = random

    async def make(self, due: DueDelivery, target: Target, policy: RetryPolicy) -> Attempted:
        """Send a delivery once; never raises but when it is cancelled.

        Args:
            due: what to send.
            target: where to.
            policy: the destination's.
        """
        try:
            payload = payload_of(due, target.body, target.source)
        except (orjson.JSONEncodeError, ValueError, RecursionError) as error:
            outcome = Outcome(kind=OutcomeKind.PERMANENT, error=clean(f"no JSON: {error}"))
        else:
            outcome = await self._sender.send(target, _webhook_id(due), payload)
        now = self._now()
        attempts = due.attempts + 1
        step = next_step(
            outcome,
            Attempt(number=attempts, open_since=due.open_since, last_status=due.last_status),
            policy,
            now=now,
            random=self._random,
        )
        return Attempted(
            outcome=outcome,
            step=step,
            result=DeliveryResult(
                key=due.key,
                state=step.state,
                attempts=attempts,
                due_at=step.due_at,
                status=outcome.status,
                error=outcome.error,
                finished_at=now,
            ),
        )

    def without_request(self, due: DueDelivery, policy: RetryPolicy) -> DeliveryResult | None:
        """Return the end of a delivery that needs no request, None when it needs one."""
        if due.document_seq != due.key.seq:
            return self._ended(due, DeliveryState.SUPERSEDED, None)
        if due.attempts > len(policy.ladder_seconds):
            # Marked before each request, and never once recorded: every holder died of it.
            reason = f"{due.attempts} attempts began and none came back"
            return self._ended(due, DeliveryState.FAILED, reason)
        return None

    def _ended(self, due: DueDelivery, state: DeliveryState, error: str | None) -> DeliveryResult:
        return DeliveryResult(
            key=due.key,
            state=state,
            attempts=due.attempts,
            due_at=None,
            status=None,
            error=error,
            finished_at=self._now(),
        )


def payload_of(due: DueDelivery, body: Body, source: str = DEFAULT_SOURCE) -> Payload:
    """Return what a delivery carries: the same for every attempt at the same content.

    Args:
        due: with the content.
        body: its form.
        source: who says so, for CloudEvents.
    """
    if due.event_type is not None:
        occurred_at = due.created_at.astimezone(UTC)
        return operational_event(due.event_type, due.key.document_id, occurred_at, due.content)
    if body == "raw":
        return raw(due.content)
    data = DocumentData(
        id=due.key.document_id,
        version=due.version,
        created_at=due.document_created_at.astimezone(UTC),
        updated_at=due.document_updated_at.astimezone(UTC),
        category=due.category,
        confidence=due.confidence,
        model_version=due.model_version,
        content=due.content,
        topics=due.topics,
        attributes=due.attributes,
    )
    planned_at = due.created_at.astimezone(UTC)
    if body == "envelope":
        return document_classified(planned_at, data)
    event_of = structured if body == "cloudevents" else binary
    return event_of(source, _webhook_id(due), planned_at, data)


def _webhook_id(due: DueDelivery) -> str:
    return webhook_id(due.key.document_id, due.key.seq, due.key.generation)
