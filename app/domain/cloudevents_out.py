"""What a receiver of CloudEvents 1.0 gets: a document as an event, structured or binary.

The event's id is the webhook's, so that a repeat is recognised by either; together with the source
it names the event, as the specification wants it.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from urllib.parse import quote

import orjson

from app.domain.envelopes import DOCUMENT_CLASSIFIED, JSON, DocumentData, Payload

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
DEFAULT_SOURCE = "urn:docyard:documents"
"""Where PUBLIC_URL does not say who we are."""
UNQUOTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""What stands for itself in a header (HTTP protocol binding, section 3.1.3.2)."""


def structured(source: str, event_id: str, occurred_at: datetime, data: DocumentData) -> Payload:
    """Return an event whose body is all of it.

    Args:
        source: says who sends.
        event_id: the webhook's.
        occurred_at: when the delivery was planned; the same for every attempt.
        data: the document.
    """
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": DOCUMENT_CLASSIFIED,
        "subject": str(data["id"]),
        "time": occurred_at,
        "datacontenttype": JSON,
        "data": data,
    }
    return Payload(orjson.dumps(event, option=orjson.OPT_UTC_Z), STRUCTURED)


def binary(source: str, event_id: str, occurred_at: datetime, data: DocumentData) -> Payload:
    """Return an event whose body is the document, and whose other members are headers.

    Args:
        source: says who sends.
        event_id: the webhook's.
        occurred_at: when the delivery was planned; the same for every attempt.
        data: the document.
    """
    # Only the source can hold what a header cannot.
    headers = (
        f"ce-specversion: 1.0\r\nce-id: {event_id}\r\nce-source: {_quoted(source)}\r\n"
        f"ce-type: {DOCUMENT_CLASSIFIED}\r\nce-subject: {data['id']}\r\n"
        f"ce-time: {occurred_at.isoformat().replace('+00:00', 'Z')}\r\n"
    )
    return Payload(orjson.dumps(data, option=orjson.OPT_UTC_Z), JSON, headers)


@lru_cache(maxsize=16)
def _quoted(text: str) -> str:
    return quote(text, safe=UNQUOTED)
