"""What a receiver gets: the Standard Webhooks envelope around a document, and its id."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, TypedDict

import orjson

DOCUMENT_CLASSIFIED = "document.classified"


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
    topics: list[str] | None
    attributes: dict[str, Any] | None


def webhook_id(document_id: uuid.UUID, seq: int, generation: int = 0) -> str:
    """Return the id by which a receiver recognises a repeat: the same for every attempt.

    It differs between versions of a document (``seq``) and between plans of one version
    (``generation``: a replay is meant to arrive again). No dot, which separates the signed parts.
    """
    if generation:
        return f"msg_{document_id.hex}_{seq}_{generation}"
    return f"msg_{document_id.hex}_{seq}"


def document_classified(occurred_at: datetime, data: DocumentData) -> bytes:
    """Return the body of a webhook.

    Args:
        occurred_at: when the delivery was planned; the same for every attempt.
        data: the document.
    """
    return orjson.dumps(
        {"type": DOCUMENT_CLASSIFIED, "timestamp": occurred_at, "data": data},
        option=orjson.OPT_UTC_Z,
    )
