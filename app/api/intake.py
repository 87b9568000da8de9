"""``POST /documents``: the hot path, without a framework between the socket and the intake.

A plain ASGI endpoint that reads the raw body answers 1.5 times as many requests as a FastAPI route
doing the same; it is described in OpenAPI by hand (``app/api/schema.py``).
"""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from app.api.bodies import (
    DUMP,
    BodyTooLarge,
    ClientGone,
    encode_with_id,
    in_turns,
    parse,
    read_body,
    require_plain,
    too_large,
    wants_minimal,
)
from app.api.cloudevents import MARK, STRUCTURED_TYPE, PostCloudEvents
from app.api.errors import answer
from app.domain.documents import lane_of
from app.domain.errors import DocyardError
from app.queue.intake import Intake
from app.settings import Settings

USUAL_TYPES = frozenset({b"application/json", b"application/x-www-form-urlencoded"})
"""What most requests say; a look here costs less than a search of the text."""


class PostDocument:
    """Accepts one document."""

    def __init__(self, settings: Settings) -> None:
        self._max_body_bytes = settings.max_body_bytes
        self._parse = partial(parse, limits=settings.document_limits)
        self._cloudevents = PostCloudEvents(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 202 once the document is durable, a problem otherwise."""
        intake: Intake = scope["app"].state.parts.intake
        prefer = encoding = b""
        length = 0
        for name, value in scope["headers"]:
            if name == b"prefer":
                prefer = value
            elif name == b"content-length":
                length = int(value)
            elif name == b"content-encoding":
                encoding = value
            elif name == MARK or (
                name == b"content-type"
                and value not in USUAL_TYPES
                and STRUCTURED_TYPE in value.lower()
            ):
                await self._cloudevents(scope, receive, send)
                return
        try:
            require_plain(encoding)
            body = await read_body(receive, length, self._max_body_bytes)
            document = await in_turns(self._parse, body)
            encoded = encode_with_id(document)
            await intake.submit(encoded, lane_of(document.priority))
        except DocyardError as error:
            await answer(Request(scope), error)(scope, receive, send)
            return
        except BodyTooLarge:
            response = too_large(scope, f"A document may have {self._max_body_bytes} bytes.")
            await response(scope, receive, send)
            return
        except ClientGone:
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"location", f"/documents/{document.id}".encode()),
        ]
        if prefer and wants_minimal(prefer):
            encoded = DUMP(document, exclude_unset=True, exclude={"content"})
            headers.append((b"preference-applied", b"return=minimal"))
        headers.append((b"content-length", str(len(encoded)).encode()))
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": encoded})
