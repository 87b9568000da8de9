"""Request bodies: read within their bounds, read as documents, and left out of answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from app.api.errors import pointer
from app.api.problems import MAX_VIOLATIONS, problem, request_id_of
from app.domain.documents import DocumentInput
from app.domain.errors import EncodingUnsupported, InvalidInput, Violation
from app.domain.identifiers import new_id
from app.domain.limits import DocumentLimits
from app.domain.ndjson import BYTE_ORDER_MARK
from app.domain.text import json_faults

ADAPTER = TypeAdapter(DocumentInput)
DUMP = ADAPTER.serializer.to_json
SLICE_BYTES = 128 * 1024
"""Validated in one go; then others have a turn on the event loop."""

T = TypeVar("T")


class BodyTooLarge(Exception):
    """The body passes the limit; raised as soon as that is certain."""


class ClientGone(Exception):
    """The client left before its body was complete."""


def announced_length(scope: Scope) -> int:
    """Return the request's ``Content-Length``, 0 when it has none.

    Raises:
        EncodingUnsupported: the body is compressed.
    """
    length = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)
        elif name == b"content-encoding":
            require_plain(value)
    return length


def require_plain(encoding: bytes) -> None:
    """Refuse a body that is compressed, as its ``Content-Encoding`` says."""
    if encoding.lower() not in (b"", b"identity"):
        raise EncodingUnsupported(encoding.decode("latin-1"))


async def read_body(receive: Receive, announced: int, most: int) -> bytes:
    """Return the whole body, without a byte order mark before it.

    Args:
        receive: of the request.
        announced: its ``Content-Length``, 0 when it has none.
        most: bytes that it may have.

    Raises:
        BodyTooLarge: as soon as that is certain; what is still to come is not read.
        ClientGone: it will never be complete.
    """
    if announced > most:
        raise BodyTooLarge
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise BodyTooLarge
        more = message.get("more_body", False)
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    # RFC 8259, section 8.1: who reads JSON may pass it over.
    return body.removeprefix(BYTE_ORDER_MARK)


def too_large(scope: Scope, sentence: str) -> Response:
    """Return the problem for a body that was not read to its end."""
    request_id = request_id_of(Request(scope))
    response = problem(413, "body_too_large", sentence, request_id=request_id)
    # What is still to come of the body is not read.
    response.headers["Connection"] = "close"
    return response


def wants_minimal(prefer: bytes) -> bool:
    """Tell whether a ``Prefer`` header asks for an answer without the content."""
    return any(part.strip() == b"return=minimal" for part in prefer.lower().split(b","))


async def in_turns(read: Callable[[bytes], T], text: bytes) -> T:
    """Return ``read(text)``; where that takes long, other requests have turns meanwhile."""
    if len(text) > SLICE_BYTES:
        # Not where Postgres is waited for (`run_in_threadpool`): it may keep all those threads.
        return await asyncio.to_thread(read, text)
    return read(text)


def parse(body: bytes, limits: DocumentLimits) -> DocumentInput:
    """Validate a document.

    Raises:
        InvalidInput: names every place that is wrong.
    """
    try:
        document = ADAPTER.validate_json(body)
    except ValidationError as error:
        raise InvalidInput(_violations(body, error)) from None
    limits.check(document)
    return document


def encode_with_id(document: DocumentInput) -> bytes:
    """Return the JSON to queue, and give the document an id if it has none.

    Written anew, never as it was sent: of several members with one name only the last was
    validated, and the others may be what no worker can read (``NaN``, ``1e999``).
    """
    if document.id is None:
        document.id = new_id()
    return DUMP(document, exclude_unset=True)


def violations_of(error: ValidationError) -> list[Violation]:
    """Return what a model of Pydantic's found wrong, by place and without the values."""
    return [
        Violation(pointer(one["loc"]), one["msg"])
        for one in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _violations(body: bytes, error: ValidationError) -> Sequence[Violation]:
    """Name the places; Pydantic's JSON parser knows only an offset, and our own checks a value."""
    found = violations_of(error)
    try:
        # There may be millions, of which nobody is told.
        faults = list(islice(json_faults(json.loads(body)), MAX_VIOLATIONS))
    except (ValueError, RecursionError):
        return found
    exact = {fault.pointer for fault in faults}
    coarse = [
        one
        for one in found
        if one.pointer and not any(place.startswith(one.pointer) for place in exact)
    ]
    return [*faults, *coarse] or found
