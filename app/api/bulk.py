"""``POST /documents/bulk``: newline-delimited JSON of any length, in bounded memory.

Lines are gathered into parts of a full chunk each, and while one part is on its way to Redis the
next is read. A full queue slows the upload down: nothing is read until there is room, so the
client's writes wait.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Literal
from urllib.parse import parse_qs

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from app.api.bodies import BodyTooLarge, ClientGone
from app.api.bulk_answers import BulkAnswers, LineAnswers, Summary, SummaryAnswer
from app.api.connections import STREAMED
from app.api.errors import answer, pointer
from app.api.parts import Parts
from app.api.streams import BrokenStream, Idle, Inflater, pieces
from app.api.upload import Stopped, Upload
from app.domain.errors import EncodingUnsupported, InvalidInput, Violation
from app.domain.identifiers import new_id
from app.domain.ndjson import LineSplitter
from app.queue import batches
from app.settings import Settings

LOG = structlog.get_logger(__name__)
PAUSE_SECONDS = 0.05
"""Of silence; then what has gathered goes its way instead of waiting for a full part."""


class BulkOptions(BaseModel):
    """The query of the route."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: uuid.UUID | None = None
    on_error: Literal["continue", "abort"] = "continue"


class PostBulk:
    """Accepts a stream of documents."""

    def __init__(self, settings: Settings) -> None:
        """Keep the limits."""
        self._max_line_bytes = settings.max_body_bytes
        self._max_bytes = settings.max_bulk_bytes
        self._idle_seconds = settings.upload_idle_seconds
        self._limits = settings.document_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer when the stream has ended, or line by line while it goes on."""
        request = Request(scope)
        try:
            options = _options(scope)
            inflater = _inflater(request)
        except (InvalidInput, EncodingUnsupported) as error:
            response = answer(request, error)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
            return
        batch_id = options.id or new_id()
        answers: BulkAnswers = (
            LineAnswers(batch_id, send)
            if "application/x-ndjson" in request.headers.get("accept", "")
            else SummaryAnswer(scope, receive, send)
        )
        parts: Parts = scope["app"].state.parts
        upload = Upload(
            parts.intake,
            batch_id,
            answers,
            self._limits,
            abort_on_error=options.on_error == "abort",
        )
        # It may be a tap that drips; how long it may be silent is decided here.
        scope.setdefault("state", {})[STREAMED] = upload.stop
        if options.id is not None:
            with suppress(RedisError, OSError):
                await batches.begin(parts.redis, parts.settings.redis_namespace, batch_id)
        renewing = asyncio.create_task(_renew(parts, batch_id))
        body = pieces(receive, pause_seconds=PAUSE_SECONDS, idle_seconds=self._idle_seconds)
        stopped = None
        try:
            try:
                await self._take_all(upload, _inflated(body, inflater, self._max_bytes))
            except Stopped as error:
                stopped = error
            # Before the answer: who has it finds the batch complete.
            await _end(parts, batch_id, stopped.code if stopped else batches.COMPLETE)
            await answers.finish(
                Summary(
                    batch_id=batch_id,
                    lines=upload.lines,
                    accepted=upload.accepted,
                    rejected=upload.rejected,
                    stopped=stopped,
                )
            )
        except ClientGone:
            await _end(parts, batch_id, batches.CUT_OFF)
            LOG.warning("bulk.cut_off", batch_id=str(batch_id), lines=upload.lines)
        finally:
            renewing.cancel()
            upload.cancel()
            answers.close()
            await body.aclose()

    async def _take_all(self, upload: Upload, body: AsyncIterator[bytes]) -> None:
        """Take every line.

        Raises:
            Stopped: before the last one.
            ClientGone: likewise; the lines that were complete are taken.
        """
        splitter = LineSplitter(self._max_line_bytes)
        try:
            async for piece in body:
                if upload.stopping or not piece:
                    await upload.settle()
                if upload.stopping:
                    sentence = "This process is about to end; go on behind `lines`."
                    raise Stopped(503, "shutting_down", sentence, retry_after_seconds=1)
                for number, line in splitter.feed(piece):
                    await upload.take(number, line)
        except Idle:
            await upload.settle()
            sentence = f"Nothing came for {self._idle_seconds:g} seconds."
            raise Stopped(408, "upload_idle", sentence) from None
        except BrokenStream as error:
            await upload.settle()
            raise Stopped(400, "body_undecodable", f"The gzip stream is broken: {error}.") from None
        except BodyTooLarge:
            await upload.settle()
            sentence = f"An upload may have {self._max_bytes} bytes, inflated; begin another one."
            raise Stopped(413, "body_too_large", sentence) from None
        except ClientGone:
            await upload.settle()
            raise
        for number, line in splitter.end():
            await upload.take(number, line)
        await upload.settle()


async def _inflated(
    body: AsyncIterator[bytes], inflater: Inflater | None, most: int
) -> AsyncIterator[bytes]:
    """Inflate a body if it is compressed.

    Raises:
        BodyTooLarge: it has more bytes than allowed, inflated.
        BrokenStream: it is not what it says it is.
    """
    size = 0
    async for piece in body:
        for plain in inflater.feed(piece) if inflater and piece else (piece,):
            size += len(plain)
            if size > most:
                raise BodyTooLarge
            yield plain
            if inflater:
                # A little that inflates to much must not keep others off the event loop.
                await asyncio.sleep(0)
    if inflater:
        inflater.end()


def _options(scope: Scope) -> BulkOptions:
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    try:
        return BulkOptions.model_validate({name: values[-1] for name, values in query.items()})
    except ValidationError as error:
        raise InvalidInput(
            [Violation(f"?{pointer(one['loc'])[1:]}", one["msg"]) for one in error.errors()]
        ) from None


def _inflater(request: Request) -> Inflater | None:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return None
    if encoding in ("gzip", "x-gzip"):
        return Inflater()
    raise EncodingUnsupported(encoding)


async def _renew(parts: Parts, batch_id: uuid.UUID) -> None:
    while True:
        await asyncio.sleep(batches.RENEW_SECONDS)
        with suppress(RedisError, OSError):
            await batches.renew(parts.redis, parts.settings.redis_namespace, batch_id)


async def _end(parts: Parts, batch_id: uuid.UUID, state: str) -> None:
    """Say how the upload ended. If Redis is away, the batch is soon silent, and so cut off."""
    try:
        await batches.end(parts.redis, parts.settings.redis_namespace, batch_id, state)
    except (RedisError, OSError) as error:
        LOG.warning("bulk.end_unmarked", batch_id=str(batch_id), reason=str(error))
