"""One signed request to one destination, and what came of it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

import structlog

from app.domain.addresses import Network
from app.domain.attempts import Trace
from app.domain.backoff import parse_retry_after
from app.domain.deliveries import Outcome, OutcomeKind, classify_response
from app.domain.envelopes import Payload
from app.domain.text import clean
from worker.answers import describe, kept_body, kept_headers
from worker.clock import own_time
from worker.connections import Connections
from worker.exchange import Answer, AnswerUnreadable, NoAnswer
from worker.resolver import AddressRefused, Names, NameUnresolved, VettedResolver
from worker.targets import Target

LOG = structlog.get_logger(__name__)


class Sender:
    """Sends to all destinations; use it as a context on the running loop."""

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        names: Names | None = None,
        now: Callable[[], datetime] = own_time,
    ) -> None:
        """Prepare; nothing is opened before the first request.

        Args:
            allowed: private networks that destinations may live in.
            names: asked for addresses; c-ares unless given.
            now: tells the time by which a date in ``Retry-After`` is read.
        """
        self._loop = asyncio.get_running_loop()
        self._now = now
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
        trace = Trace()
        request = target.request(webhook_id, int(time.time()), payload)
        del payload  # It is part of the request.
        deadline = self._loop.time() + target.timeout_seconds
        try:
            answer = await self._exchange(target, request, deadline, trace)
        except OSError as error:
            return _failure(error, target, trace)
        except Exception as error:  # an unknown failure is one of this delivery
            LOG.exception("delivery.send_failed", host=target.origin.host)
            return _failure(error, target, trace)
        return _outcome(answer, trace, self._now())

    async def _exchange(
        self, target: Target, request: bytes, deadline: float, trace: Trace
    ) -> Answer:
        connection = self._connections.take(target.origin)
        if connection is not None:
            try:
                answer = await connection.exchange(request, deadline, trace)
            except NoAnswer:
                # Most often a kept connection that the receiver closed as the request set out.
                # The receiver drops the second one by its webhook-id if it did get the first.
                connection = None
        if connection is None:
            connection = await self._connections.open(target.origin, deadline, trace)
            answer = await connection.exchange(request, deadline, trace)
        self._connections.give(target.origin, connection)
        return answer


def _outcome(answer: Answer, trace: Trace, now: datetime) -> Outcome:
    duration = trace.ended()
    trace.headers, encoding = kept_headers(answer)
    trace.body = body = kept_body(answer, encoding)
    if 200 <= answer.status < 300:  # noqa: PLR2004  (the class is the meaning)
        return Outcome(
            kind=OutcomeKind.SUCCESS, status=answer.status, duration_seconds=duration, trace=trace
        )
    retry_after = answer.header(b"retry-after")
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return Outcome(
        kind=classify_response(answer.status, headers),
        status=answer.status,
        error=describe(answer, body),
        retry_after_seconds=parse_retry_after(retry_after, now),
        duration_seconds=duration,
        trace=trace,
    )


def _failure(error: Exception, target: Target, trace: Trace) -> Outcome:
    duration = trace.ended()
    kind = OutcomeKind.PERMANENT if isinstance(error, AddressRefused) else OutcomeKind.TEMPORARY
    return Outcome(
        kind=kind, error=clean(_explain(error, target)), duration_seconds=duration, trace=trace
    )


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
            # Some come without a word: that of a handshake which the receiver broke off.
            text = f"no connection: {error.strerror or str(error) or 'the receiver closed it'}"
        case _:
            text = f"{type(error).__name__}: {error}"
    return text
