"""What a receiver of CloudEvents 1.0 gets, structured or binary.

The event's id is the webhook's, so that a repeat is recognised by either; together with the source
it names the event, as the specification wants it.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from app.domain.envelopes import JSON, Payload

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
DEFAULT_SOURCE = "urn:docyard:documents"
"""Where PUBLIC_URL does not say who we are."""
UNQUOTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""What stands for itself in a header (HTTP protocol binding, section 3.1.3.2)."""


class Event(NamedTuple):
    """What every form of an event says.

    Attributes:
        source: who sends.
        id: the webhook's.
        type: ``document.classified``, or that of an operational event.
        subject: the id of the document that it is about, None where it is about none.
        occurred_at: when the delivery was planned; the same for every attempt.
        data: what it says, for ``orjson``: an object.
    """

    source: str
    id: str
    type: str
    subject: str | None
    occurred_at: datetime
    data: Any


def structured(event: Event) -> Payload:
    """Return an event whose body is all of it."""
    members = {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        **({} if event.subject is None else {"subject": event.subject}),
        "time": event.occurred_at,
        "datacontenttype": JSON,
        "data": event.data,
    }
    return Payload(orjson.dumps(members, option=orjson.OPT_UTC_Z), STRUCTURED)


def binary(event: Event) -> Payload:
    """Return an event whose body is its data, and whose other members are headers."""
    subject = "" if event.subject is None else f"ce-subject: {event.subject}\r\n"
    # Only the source can hold what a header cannot.
    headers = (
        f"ce-specversion: 1.0\r\nce-id: {event.id}\r\nce-source: {_quoted(event.source)}\r\n"
        f"ce-type: {event.type}\r\n{subject}"
        f"ce-time: {event.occurred_at.isoformat().replace('+00:00', 'Z')}\r\n"
    )
    return Payload(orjson.dumps(event.data, option=orjson.OPT_UTC_Z), JSON, headers)


@lru_cache(maxsize=16)
def _quoted(text: str) -> str:
    return quote(text, safe=UNQUOTED)
