"""CloudEvents on ``POST /documents``: structured, binary and batched (HTTP binding 1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.arrays import Member, PostArray, accepted
from app.api.bodies import (
    DUMP,
    BodyTooLarge,
    ClientGone,
    announced_length,
    in_turns,
    parse,
    read_body,
    too_large,
    wants_minimal,
)
from app.api.errors import answer
from app.api.parts import Parts
from app.domain.cloudevents import from_binary, from_structured
from app.domain.documents import lane_of
from app.domain.errors import DocyardError, FormatUnsupported
from app.domain.limits import DocumentLimits
from app.settings import Settings

STRUCTURED_TYPE = b"application/cloudevents"
BATCH_TYPE = b"application/cloudevents-batch"
FORMATS = {b"", b"json"}
"""What may follow them behind a plus sign."""
MARK = b"ce-specversion"
"""A request with this header is an event in binary form."""


class PostCloudEvents:
    """Accepts an event, or an array of them, as documents."""

    def __init__(self, settings: Settings) -> None:
        """Keep the limits."""
        self._max_body_bytes = settings.max_body_bytes
        self._limits = settings.document_limits
        self._batch = PostArray(partial(read_structured, limits=self._limits), accepted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 202 once all is durable, a problem otherwise."""
        headers = dict(scope["headers"])
        media_type = headers.get(b"content-type", b"").lower().partition(b";")[0].strip()
        form, _, suffix = media_type.partition(b"+")
        if form in (BATCH_TYPE, STRUCTURED_TYPE) and suffix not in FORMATS:
            error = FormatUnsupported(media_type.decode("latin-1"))
            await answer(Request(scope), error)(scope, receive, send)
            return
        if form == BATCH_TYPE:
            await self._batch(scope, receive, send)
            return
        parts: Parts = scope["app"].state.parts
        try:
            body = await read_body(receive, announced_length(scope), self._max_body_bytes)
            read = read_structured if form == STRUCTURED_TYPE else partial(read_binary, headers)
            event = await in_turns(partial(read, limits=self._limits), body)
            await parts.intake.submit(event.encoded, event.lane)
            response = _accepted(event, headers.get(b"prefer", b""))
        except DocyardError as error:
            response = answer(Request(scope), error)
        except BodyTooLarge:
            response = too_large(scope, f"An event may have {self._max_body_bytes} bytes.")
        except ClientGone:
            return
        await response(scope, receive, send)


def read_structured(body: bytes, limits: DocumentLimits) -> Member:
    """Validate an event in JSON form.

    Raises:
        InvalidInput: names the places that are wrong.
    """
    return _member(from_structured(body), limits)


def read_binary(headers: Mapping[bytes, bytes], body: bytes, limits: DocumentLimits) -> Member:
    """Validate an event whose members are headers.

    Raises:
        InvalidInput: names the places that are wrong.
    """
    return _member(from_binary(headers, body), limits)


def _accepted(event: Member, prefer: bytes) -> Response:
    body, headers = event.encoded, {"Location": f"/documents/{event.id}"}
    if wants_minimal(prefer):
        document = orjson.loads(body)
        del document["content"]
        body = orjson.dumps(document)
        headers["Preference-Applied"] = "return=minimal"
    return Response(body, 202, headers, media_type="application/json")


def _member(fields: dict[str, Any], limits: DocumentLimits) -> Member:
    document = parse(orjson.dumps(fields), limits)
    assert document.id is not None  # noqa: S101  (made of source and id)
    return Member(document.id, DUMP(document, exclude_unset=True), lane_of(document.priority))
