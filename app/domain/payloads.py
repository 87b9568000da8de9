"""What collectors are called with: the payload, and what becomes of it on its way."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from pydantic import BaseModel

from app.domain.documents import DEFAULT_PRIORITY
from app.domain.predictions import Prediction
from app.domain.text import text_fault


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedDocument:
    """The document behind a payload. ``id`` and ``version`` (with ``seq``) tell repeats apart.

    Attributes:
        seq: order number of this version; rises with every update.
    """

    id: uuid.UUID
    version: int
    seq: int
    content: str
    attributes: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What a collector is called with.

    Attributes:
        value: the content; a JSON object or array (an event, what ``dispatch`` and ``call`` were
            given) as Python values, anything else as text.
        delivery: ``broadcast``, ``key`` or ``topic``, as sent or implied; None where both keys and
            topics were given and it was not said.
        keys: that the document was addressed to.
        topics: that it is about.
        priority: lower is sooner.
        prediction: what the model said; None without a model, and for calls between collectors.
        document: where the value comes from.
        attempt: 1 at first, one more each time that an attempt failed.
        event: the type of an operational event; None for a document.
    """

    value: Any
    delivery: str | None
    keys: Sequence[str]
    topics: Sequence[str]
    priority: int
    prediction: Prediction | None
    document: CollectedDocument
    attempt: int
    event: str | None = None


def content_of(payload: Any) -> str:
    """Return the content of a document that carries a payload.

    Raises:
        TypeError: it is neither text nor something that is a JSON object or array.
        ValueError: it is empty, or text that cannot be stored.
    """
    if isinstance(payload, str):
        content = payload
    elif isinstance(payload, BaseModel):
        content = payload.model_dump_json()
    else:
        content = orjson.dumps(payload).decode()
        if content[0] not in "{[":
            message = f"a payload is text, a JSON object or an array, not {type(payload).__name__}"
            raise TypeError(message)
    if fault := text_fault(content) or (None if content else "is empty"):
        message = f"the payload {fault}"
        raise ValueError(message)
    return content


def value_of(content: str) -> Any:
    """Return what ``payload.value`` is for a content."""
    if content.lstrip()[:1] in ("{", "["):
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError:
            pass
    return content


def payload_of(due: Any) -> Payload:
    """Return the payload of a delivery that is due (a row of ``app.storage.deliveries``)."""
    keys, topics = due.keys or [], due.topics or []
    implied = None if keys and topics else "key" if keys else "topic" if topics else "broadcast"
    return Payload(
        value=value_of(due.content),
        delivery=due.delivery or implied,
        keys=keys,
        topics=topics,
        priority=DEFAULT_PRIORITY if due.priority is None else due.priority,
        prediction=None
        if due.category is None
        else Prediction(due.category, due.confidence, due.model_version),
        document=CollectedDocument(
            id=due.key.document_id,
            version=due.version,
            seq=due.key.seq,
            content=due.content,
            attributes=due.attributes,
            created_at=due.document_created_at,
            updated_at=due.document_updated_at,
        ),
        attempt=due.attempts + 1,
        event=due.event_type,
    )
