"""Documents that travel together: one body, one signature, one id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

from app.domain.envelopes import Payload

NDJSON = "application/x-ndjson"
BatchFormat = Literal["json", "ndjson"]


def batch_id(ids: Iterable[str]) -> str:
    """Return the ``webhook-id`` of documents that travel together.

    The same documents have the same id, so that a receiver recognises the repeat of a request. A
    batch that is put together anew, because a crash came between or a document was replaced, has
    another one: within it each document still has its own.
    """
    return f"batch_{hashlib.sha256(' '.join(ids).encode()).hexdigest()[:32]}"


def with_id(webhook_id: str, envelope: bytes) -> bytes:
    """Return an envelope with its document's own ``webhook-id`` in front."""
    return b'{"id":"%s",%s' % (webhook_id.encode(), envelope[1:])


def together(parts: Sequence[bytes], form: BatchFormat, array_type: str) -> Payload:
    """Return the body around several JSON objects.

    Args:
        parts: the objects, none with a line break outside of its strings.
        form: a JSON array, or a line for each.
        array_type: media type of the array.
    """
    if form == "ndjson":
        return Payload(b"".join(part + b"\n" for part in parts), NDJSON)
    return Payload(b"[%s]" % b",".join(parts), array_type)
