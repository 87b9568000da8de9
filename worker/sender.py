"""One signed request to one destination, and what came of it."""

from __future__ import annotations

import asyncio
import ssl
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import structlog
from yarl import URL

from app import __version__
from app.domain.addresses import Network
from app.domain.backoff import parse_retry_after
from app.domain.deliveries import Outcome, OutcomeKind, classify_response
from app.domain.destinations import Body, Destination
from app.domain.envelopes import Payload
from app.domain.signing import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    decode_secret,
    sign_with_key,
    signed_bytes,
)
from worker.connections import Connections, Origin
from worker.exchange import Answer, AnswerUnreadable, NoAnswer
from worker.resolver import AddressRefused, Names, NameUnresolved, VettedResolver

LOG = structlog.get_logger(__name__)

EXCERPT_CAP = 2 * 1024
"""Most bytes kept of an answer's body, after decompression."""
ERROR_CAP = 500

_HEADERS = (
    f"User-Agent: Docyard/{__version__}\r\n"
    "Accept: */*\r\n"
    # A compressed answer saves nothing, since little of it is read.
    "Accept-Encoding: identity\r\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A destination, prepared once for many requests.

    Attributes:
        head: the part of a request's head that is the same for all.
    """

    origin: Origin
    head: str
    key: bytes
    timeout_seconds: float
    body: Body

    @classmethod
    def of(cls, destination: Destination) -> Self:
        """Prepare a destination."""
        url = URL(destination.url)
        tls = url.scheme == "https"
        return cls(
            origin=Origin(url.raw_host or "", url.port or (443 if tls else 80), tls),
            head=f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n"
            + _HEADERS,
            key=decode_secret(destination.secret),
            timeout_seconds=destination.timeout_seconds,
            body=destination.body,
        )

    def request(self, webhook_id: str, timestamp: int, payload: Payload) -> bytes:
        """Return the bytes of a signed request."""
        body, content_type = payload
        signature = sign_with_key(self.key, signed_bytes(webhook_id, timestamp, body))
        head = (
            f"{self.head}Content-Type: {content_type}\r\n"
            f"{ID_HEADER}: {webhook_id}\r\n{TIMESTAMP_HEADER}: {timestamp}\r\n"
            f"{SIGNATURE_HEADER}: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


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
    if encoding.strip().lower() in {"gzip", "x-gzip", "deflate"}:
        try:
            # The bound is on what comes out: a kilobyte can unfold to a megabyte.
            body = zlib.decompressobj(wbits=47).decompress(body, EXCERPT_CAP)
        except zlib.error:
            return ""
    return " ".join(body[:EXCERPT_CAP].decode(errors="replace").split())


def clean(text: str) -> str:
    """Make a text from outside storable: Postgres takes neither NUL nor lone surrogates."""
    return text[:ERROR_CAP].replace("\0", "\ufffd").encode(errors="replace").decode()


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
