"""What a receiver gets: the Standard Webhooks envelope around a document, and its id."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Any, NamedTuple, TypedDict

import orjson

DOCUMENT_CLASSIFIED = "document.classified"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

PARSED_CHARACTERS = 64 * 1024
"""Longer contents are JSON or not by how they begin and end: parsing 8 MiB takes up to 0.3 s."""
_WHITESPACE = " \t\r\n"
_WEBHOOK_ID = re.compile(r"msg_([0-9a-f]{32})_([0-9]{1,18})(?:_([0-9]{1,4}))?")
_OPENING = re.compile(r'[ \t\r\n]*+(?:\{[ \t\r\n]*+["}]|\[[ \t\r\n]*+[]["{0-9tfn-])')


class Payload(NamedTuple):
    """What a request carries; ``headers`` are lines of its own, each with its end."""

    body: bytes
    content_type: str
    headers: str = ""


class DocumentData(TypedDict):
    """``data`` of ``document.classified``: the document as ``GET /documents/{id}`` shows it.

    Attributes:
        category: None while no model has classified it; likewise the next two.
        topics: None when the client never sent any; likewise ``attributes``.
    """

    id: uuid.UUID
    version: int
    created_at: datetime
    updated_at: datetime
    category: str | None
    confidence: float | None
    model_version: str | None
    content: str
    topics: list[str] | orjson.Fragment | None
    attributes: dict[str, Any] | orjson.Fragment | None


def webhook_id(document_id: uuid.UUID, seq: int, generation: int = 0) -> str:
    """Return the id by which a receiver recognises a repeat: the same for every attempt.

    It differs between versions of a document (``seq``) and between plans of one version
    (``generation``: a replay is meant to arrive again). No dot, which separates the signed parts.
    """
    if generation:
        return f"msg_{document_id.hex}_{seq}_{generation}"
    return f"msg_{document_id.hex}_{seq}"


def parse_webhook_id(text: str) -> tuple[uuid.UUID, int, int]:
    """Return the document's id, order number and generation that a webhook's id names.

    Raises:
        ValueError: it is none of ours.
    """
    match = _WEBHOOK_ID.fullmatch(text)
    if match is None:
        raise ValueError("webhook-ids of ours look like msg_<document>_<number>")
    return uuid.UUID(match[1]), int(match[2]), int(match[3] or 0)


def raw(content: str) -> Payload:
    """Return a document's content alone, as it was sent: JSON if it is an object or an array."""
    return Payload(content.encode(), JSON if _is_json(content) else TEXT)


def operational_event(
    event_type: str, event_id: uuid.UUID, occurred_at: datetime, data: str
) -> Payload:
    """Return the envelope around an operational event; ``data`` is a JSON object as text."""
    body = orjson.dumps(
        {
            "type": event_type,
            "id": event_id,
            "timestamp": occurred_at,
            "data": orjson.Fragment(data),
        },
        option=orjson.OPT_UTC_Z,
    )
    return Payload(body, JSON)


def _is_json(content: str) -> bool:
    if not _OPENING.match(content):
        return False
    if len(content) > PARSED_CHARACTERS:
        return content.rstrip(_WHITESPACE)[-1] in "]}"
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    return True


def document_classified(occurred_at: datetime, data: DocumentData) -> Payload:
    """Return the envelope around a document.

    Args:
        occurred_at: when the delivery was planned; the same for every attempt.
        data: the document.
    """
    body = orjson.dumps(
        {"type": DOCUMENT_CLASSIFIED, "timestamp": occurred_at, "data": data},
        option=orjson.OPT_UTC_Z,
    )
    return Payload(body, JSON)
