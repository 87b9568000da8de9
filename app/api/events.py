"""``POST /v1/event`` and ``POST /v1/batch``: any JSON object as a document.

The content of the document is the object's JSON, byte for byte as it was sent, so that a
destination with ``body: raw`` gets exactly these bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.arrays import Member
from app.api.bodies import (
    BodyTooLarge,
    ClientGone,
    announced_length,
    in_turns,
    read_body,
    too_large,
)
from app.api.errors import answer, pointer, steps
from app.api.parts import Parts
from app.domain.documents import Lane
from app.domain.errors import DocyardError, InvalidInput, Violation
from app.domain.identifiers import new_id

OK = b'"OK"'


class EventReader:
    """Makes documents of events."""

    def __init__(self, model: type[BaseModel] | None) -> None:
        """Keep the model of the user's that events must fit, if there is one."""
        self._model = model

    def __call__(self, sent: bytes) -> Member:
        """Validate an event.

        Raises:
            InvalidInput: it is no JSON object, or does not fit the model; names the places.
        """
        try:
            # Decoded here and not by the parser, which takes other encodings as well.
            text = sent.strip().decode()
            event = orjson.loads(text)
        except UnicodeDecodeError as error:
            raise _invalid(f"This is not UTF-8 (byte {error.start}).") from None
        except orjson.JSONDecodeError as error:
            raise _invalid(f"This is no JSON: {error}.") from None
        if not isinstance(event, dict):
            raise _invalid("An event is a JSON object.")
        if self._model is not None:
            try:
                self._model.model_validate_json(text)
            except ValidationError as error:
                raise InvalidInput(_violations(event, error)) from None
        document_id = new_id()
        encoded = b'{"id":"%b","content":%b}' % (str(document_id).encode(), orjson.dumps(text))
        return Member(document_id, encoded, Lane.NORMAL)


class PostEvent:
    """Accepts one event."""

    def __init__(self, read: EventReader, max_body_bytes: int) -> None:
        """Keep what makes a document of an event, and how large one may be."""
        self._read = read
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 200 once the event is durable, a problem otherwise."""
        parts: Parts = scope["app"].state.parts
        try:
            body = await read_body(receive, announced_length(scope), self._max_body_bytes)
            event = await in_turns(self._read, body)
            await parts.intake.submit(event.encoded, event.lane)
            response = _ok(f"/documents/{event.id}")
        except DocyardError as error:
            response = answer(Request(scope), error)
        except BodyTooLarge:
            response = too_large(scope, f"An event may have {self._max_body_bytes} bytes.")
        except ClientGone:
            return
        await response(scope, receive, send)


def batch_ok(batch_id: uuid.UUID, members: Sequence[Member]) -> Response:  # noqa: ARG001  (a Respond)
    """Answer 200 for an array of events."""
    return _ok(f"/batches/{batch_id}")


def _violations(event: Any, error: ValidationError) -> list[Violation]:
    """Name the places in the event.

    A model of the user's may have unions, and to Pydantic each member of one that it tried is a
    step on the way: those are left out.
    """
    return [
        Violation(pointer(list(steps(event, one["loc"], one["type"]))), one["msg"])
        for one in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _ok(location: str) -> Response:
    return Response(OK, 200, {"Location": location}, media_type="application/json")


def _invalid(detail: str) -> InvalidInput:
    return InvalidInput([Violation("", detail)])
