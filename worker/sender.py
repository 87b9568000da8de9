"""One signed request to one destination, and what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import structlog

from app.domain.addresses import Network
from app.domain.backoff import parse_retry_after
from app.domain.deliveries import Outcome, OutcomeKind, classify_response
from app.domain.envelopes import Payload
from app.domain.text import clean
from worker.connections import Connections
from worker.exchange import Answer, AnswerUnreadable, NoAnswer
from worker.resolver import AddressRefused, Names, NameUnresolved, VettedResolver
from worker.targets import Target

LOG = structlog.get_logger(__name__)

EXCERPT_CAP = 2 * 1024
"""Most bytes kept of an answer's body, after decompression."""


class Sender:
    """Sends to all destinations; use it as a context on the running loop."""

    def __init__(self, allowed: Sequence[Network] = (), *, names: Names | None = None) -> None:
        """Prepare; nothing is opened before the first request.

        Args:
            allowed: private networks that destinations may live in.
            names: asked for addresses; c-ares unless given.
        """
        self._loop = asyncio.get_running_loop()
        self._resolver = VettedResolver(allowed, names=names)
        self._connections = Connections(self._resolver)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connections.close()
        await self._resolver.close()

    async def send(self, target: Target, webhook_id: str, payload: Payload) -> Outcome:
        """POST a payload, signed for this moment; every end is an outcome.

        The destination's timeout covers the whole, from the look-up of the name to the last byte
        that is read of the answer.
        """
        began_at = self._loop.time()
        request = target.request(webhook_id, int(time.time()), payload)
        try:
            answer = await self._exchange(target, request, began_at + target.timeout_seconds)
        except OSError as error:
            return _failure(error, target, self._loop.time() - began_at)
        except Exception as error:  # an unknown failure is one of this delivery
            LOG.exception("delivery.send_failed", host=target.origin.host)
            return _failure(error, target, self._loop.time() - began_at)
        return _outcome(answer, self._loop.time() - began_at)

    async def _exchange(self, target: Target, request: bytes, deadline: float) -> Answer:
        connection = self._connections.take(target.origin)
        if connection is not None:
            try:
                answer = await connection.exchange(request, deadline)
            except NoAnswer:
                # Most often a kept connection that the receiver closed as the request set out.
                # The receiver drops the second one by its webhook-id if it did get the first.
                connection = None
        if connection is None:
            connection = await self._connections.open(target.origin, deadline)
            answer = await connection.exchange(request, deadline)
        self._connections.give(target.origin, connection)
        return answer


def _outcome(answer: Answer, duration: float) -> Outcome:
    if 200 <= answer.status < 300:  # noqa: PLR2004  (the usual case, without looking at headers)
        return Outcome(kind=OutcomeKind.SUCCESS, status=answer.status, duration_seconds=duration)
    retry_after = answer.header(b"retry-after")
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return Outcome(
        kind=classify_response(answer.status, headers),
        status=answer.status,
        error=_describe(answer),
        retry_after_seconds=parse_retry_after(retry_after, datetime.now(UTC)),
        duration_seconds=duration,
    )


def _describe(answer: Answer) -> str:
    reason = f"HTTP {answer.status} {answer.reason.decode('latin-1')}".rstrip()
    excerpt = _excerpt(answer.body, answer.header(b"content-encoding") or "")
    return clean(f"{reason}: {excerpt}" if excerpt else reason)


def _excerpt(body: bytes, encoding: str) -> str:
    coding = encoding.strip().lower()
    if coding in {"gzip", "x-gzip", "deflate"}:
        body = _inflated(body)
    elif coding not in {"", "identity"}:
        # Nobody asked for it, and what is not unfolded cannot be a bomb.
        return f"(a body in {coding})"
    return " ".join(body[:EXCERPT_CAP].decode(errors="replace").split())


def _inflated(body: bytes) -> bytes:
    # With a header of gzip or zlib, or without one, as some understand "deflate".
    for window_bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        # The bound is on what comes out: a kilobyte can unfold to a megabyte.
        with contextlib.suppress(zlib.error):
            return zlib.decompressobj(wbits=window_bits).decompress(body, EXCERPT_CAP)
    return b""


def _failure(error: Exception, target: Target, duration: float) -> Outcome:
    kind = OutcomeKind.PERMANENT if isinstance(error, AddressRefused) else OutcomeKind.TEMPORARY
    return Outcome(kind=kind, error=clean(_explain(error, target)), duration_seconds=duration)


def _explain(error: Exception, target: Target) -> str:
    match error:
        case TimeoutError():
            text = f"no complete answer within {target.timeout_seconds:g} s"
        case AddressRefused():
            text = f"address refused: {error}"
        case ssl.SSLCertVerificationError():
            text = f"TLS certificate: {error.verify_message}"
        case ssl.SSLError():
            text = f"TLS: {error.reason or error}"
        case NameUnresolved() | NoAnswer() | AnswerUnreadable():
            text = str(error)
        case OSError():
            text = f"no connection: {error.strerror or error}"
        case _:
            text = f"{type(error).__name__}: {error}"
    return text
