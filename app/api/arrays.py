"""Arrays that are queued whole or not at all: of documents, of events, of CloudEvents."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.bodies import (
    SLICE_BYTES,
    BodyTooLarge,
    ClientGone,
    announced_length,
    in_turns,
    read_body,
    too_large,
)
from app.api.errors import answer
from app.api.parts import Parts
from app.api.problems import MAX_VIOLATIONS
from app.domain.documents import Lane
from app.domain.errors import BatchTooLong, DocyardError, InvalidInput, Violation
from app.domain.identifiers import new_id
from app.domain.json_arrays import NotAnArray, elements_in_turns
from app.queue.append import BatchPart
from app.settings import Settings


class Member(NamedTuple):
    """A valid document, ready for the queue."""

    id: uuid.UUID
    encoded: bytes
    lane: Lane


ReadMember = Callable[[bytes], Member]
"""Validates the JSON of one element; raises InvalidInput."""
Respond = Callable[[uuid.UUID, Sequence[Member]], Response]
"""Answers for a batch that was accepted, given its id and its members."""


class PostArray:
    """Accepts a JSON array, all of it or nothing."""

    def __init__(self, read: ReadMember, respond: Respond) -> None:
        """Keep what makes documents of elements, and an answer of a batch."""
        self._read = read
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer once all is durable, with a problem otherwise."""
        parts: Parts = scope["app"].state.parts
        settings = parts.settings
        try:
            body = await read_body(receive, announced_length(scope), settings.max_batch_bytes)
            members = await read_array(body, self._read, settings)
            batch_id = new_id()
            await parts.intake.submit_many(
                [member.encoded for member in members],
                least_urgent(members),
                BatchPart(batch_id, ends=True),
            )
            response = self._respond(batch_id, members)
        except DocyardError as error:
            response = answer(Request(scope), error)
        except BodyTooLarge:
            response = too_large(
                scope,
                f"A batch may have {settings.max_batch_bytes} bytes and"
                f" {settings.max_batch_documents} elements;"
                " send several, or documents as NDJSON to /documents/bulk.",
            )
        except ClientGone:
            return
        await response(scope, receive, send)


async def read_array(body: bytes, read: ReadMember, settings: Settings) -> list[Member]:
    """Validate all elements.

    Args:
        body: the array.
        read: makes documents of elements.
        settings: with the limits.

    Raises:
        InvalidInput: names the index of each element that is wrong.
        BatchTooLong: it has more elements than a batch may have.
    """
    members: list[Member] = []
    violations: list[Violation] = []
    index = size = 0
    try:
        for element in elements_in_turns(body):
            if element is None:
                await asyncio.sleep(0)
                continue
            if index == settings.max_batch_documents:
                raise BatchTooLong(settings.max_batch_documents)
            try:
                _require_size(element, settings.max_body_bytes)
                members.append(await in_turns(read, element))
            except InvalidInput as error:
                violations += error.within(f"/{index}").violations
                if len(violations) >= MAX_VIOLATIONS:
                    break
            index += 1
            size += len(element)
            if size > SLICE_BYTES:
                size = 0
                await asyncio.sleep(0)
    except NotAnArray as error:
        violations.append(Violation("", str(error)))
    if not (members or violations):
        violations.append(Violation("", "The array is empty."))
    if violations:
        raise InvalidInput(violations)
    return members


def _require_size(element: bytes, most: int) -> None:
    if len(element) > most:
        raise InvalidInput([Violation("", f"An element may have {most} bytes.")])


def least_urgent(members: Sequence[Member]) -> Lane:
    """Return the lane in which a batch goes as a whole."""
    return Lane.HIGH if all(one.lane is Lane.HIGH for one in members) else Lane.NORMAL


def accepted(batch_id: uuid.UUID, members: Sequence[Member]) -> Response:
    """Answer 202 with the batch's id and those of its documents, in order."""
    ids = [member.id for member in members]
    body = {
        "id": str(batch_id),
        "accepted": len(ids),
        "ids": [str(one) for one in ids],
        "replaced": replaced(ids),
    }
    headers = {"Location": f"/batches/{batch_id}"}
    return Response(orjson.dumps(body), 202, headers, media_type="application/json")


def replaced(ids: Sequence[uuid.UUID]) -> list[int]:
    """Return the places of elements that a later one with the same id comes behind."""
    last = {one: place for place, one in enumerate(ids)}
    return [place for place, one in enumerate(ids) if last[one] != place]
