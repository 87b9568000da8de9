"""One signed request to one destination, and what came of it."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import structlog
from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    InvalidURL,
    ServerDisconnectedError,
)
from aiohttp.abc import AbstractResolver
from yarl import URL

from app import __version__
from app.domain.addresses import Network
from app.domain.backoff import parse_retry_after
from app.domain.deliveries import Outcome, OutcomeKind, classify_response
from app.domain.destinations import Destination
from app.domain.signing import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    decode_secret,
    sign_with_key,
)
from worker.resolver import AddressRefused, VettedResolver, make_connector

LOG = structlog.get_logger(__name__)

BODY_CAP = 64 * 1024
"""Most bytes read of an answer; more would only be thrown away, with the connection."""
EXCERPT_CAP = 2 * 1024
"""Most bytes kept of it, after decompression."""
ERROR_CAP = 500
READ_BUFFER = 8 * 1024
"""aiohttp stops reading from the socket at twice this, so an answer cannot fill memory."""

_HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": f"Docyard/{__version__}",
    "Accept": "*/*",
    # A compressed answer saves nothing, since little of it is read.
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A destination, prepared once for many requests."""

    url: URL
    key: bytes
    timeout: ClientTimeout
    timeout_seconds: float

    @classmethod
    def of(cls, destination: Destination) -> Self:
        """Prepare a destination."""
        return cls(
            url=URL(destination.url),
            key=decode_secret(destination.secret),
            timeout=_timeout(destination.timeout_seconds),
            timeout_seconds=destination.timeout_seconds,
        )


class Sender:
    """Sends over one session for all destinations; use it as a context on the running loop."""

    def __init__(
        self, allowed: Sequence[Network] = (), *, resolver: AbstractResolver | None = None
    ) -> None:
        """Open the session.

        Args:
            allowed: private networks that destinations may live in.
            resolver: asked for names; c-ares unless given.
        """
        self._resolver = VettedResolver(allowed, resolver=resolver)
        self._session = ClientSession(
            connector=make_connector(self._resolver, allowed),
            cookie_jar=DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()
        await self._resolver.close()

    async def send(self, target: Target, webhook_id: str, body: bytes) -> Outcome:
        """POST a body, signed for this moment; every end is an outcome.

        The destination's timeout covers the whole, from the look-up of the name to the last byte
        that is read of the answer.
        """
        started = time.monotonic()
        try:
            try:
                return await self._attempt(target, webhook_id, body, started)
            except (ServerDisconnectedError, ConnectionResetError):
                left = target.timeout_seconds - (time.monotonic() - started)
                if left <= 0:
                    raise
                # Most often a kept connection that the receiver closed as the request set out.
                # The receiver drops the second one by its webhook-id if it did get the first.
                return await self._attempt(target, webhook_id, body, started, _timeout(left))
        except (TimeoutError, ClientError, OSError, ValueError) as error:
            return _failure(error, target, time.monotonic() - started)
        except Exception as error:  # an unknown failure is one of this delivery
            LOG.exception("delivery.send_failed", url=str(target.url.origin()))
            return _failure(error, target, time.monotonic() - started)

    async def _attempt(
        self,
        target: Target,
        webhook_id: str,
        body: bytes,
        started: float,
        timeout: ClientTimeout | None = None,  # noqa: ASYNC109  (aiohttp's own, with one timer for all)
    ) -> Outcome:
        timestamp = int(time.time())
        response = await self._session.post(
            target.url,
            data=body,
            headers={
                ID_HEADER: webhook_id,
                TIMESTAMP_HEADER: str(timestamp),
                SIGNATURE_HEADER: sign_with_key(target.key, webhook_id, timestamp, body),
            },
            allow_redirects=False,
            timeout=timeout or target.timeout,
        )
        status = response.status
        kind = classify_response(status, response.headers)
        if response.content.is_eof():
            # The whole answer came at once, and the connection is back in the pool.
            content = b"" if kind is OutcomeKind.SUCCESS else response.content.read_nowait()
        else:
            content = await _read(response)
        duration = time.monotonic() - started
        if kind is OutcomeKind.SUCCESS:
            return Outcome(kind=kind, status=status, duration_seconds=duration)
        return Outcome(
            kind=kind,
            status=status,
            error=_describe(response, content),
            retry_after_seconds=parse_retry_after(
                response.headers.get("Retry-After"), datetime.now(UTC)
            ),
            duration_seconds=duration,
        )


def _timeout(seconds: float) -> ClientTimeout:
    return ClientTimeout(total=seconds, connect=None, sock_connect=None, sock_read=None)


async def _read(response: ClientResponse) -> bytes:
    """Read an answer to its end, to the cap or to the deadline, whichever comes first.

    The status has been said by then: a body that drips, never ends or breaks off changes nothing
    about it, it only costs the connection.
    """
    kept = bytearray()
    try:
        while not response.content.at_eof():
            kept += await response.content.readany()
            if len(kept) > BODY_CAP:
                break
    except (TimeoutError, ClientError, OSError):
        pass
    finally:
        # Back to the pool at the end of the body; otherwise the connection is closed.
        response.close()
    return bytes(kept[:BODY_CAP])


def _describe(response: ClientResponse, content: bytes) -> str:
    excerpt = _excerpt(content, response.headers.get("Content-Encoding", ""))
    reason = f"HTTP {response.status} {response.reason or ''}".rstrip()
    return clean(f"{reason}: {excerpt}" if excerpt else reason)


def _excerpt(content: bytes, encoding: str) -> str:
    if encoding.strip().lower() in {"gzip", "x-gzip", "deflate"}:
        try:
            # The bound is on what comes out: a kilobyte can unfold to a megabyte.
            content = zlib.decompressobj(wbits=47).decompress(content, EXCERPT_CAP)
        except zlib.error:
            return ""
    return " ".join(content[:EXCERPT_CAP].decode(errors="replace").split())


def clean(text: str) -> str:
    """Make a text from outside storable: Postgres takes neither NUL nor lone surrogates."""
    return text[:ERROR_CAP].replace("\0", "\ufffd").encode(errors="replace").decode()


def _failure(error: Exception, target: Target, duration: float) -> Outcome:
    kind, text = _explain(error, target)
    return Outcome(kind=kind, error=clean(text), duration_seconds=duration)


def _explain(error: Exception, target: Target) -> tuple[OutcomeKind, str]:
    cause = error.os_error if isinstance(error, ClientConnectorError) else error
    if isinstance(cause, AddressRefused):
        return OutcomeKind.PERMANENT, f"address refused: {cause}"
    if isinstance(error, InvalidURL):
        return OutcomeKind.PERMANENT, f"URL refused: {error}"
    return OutcomeKind.TEMPORARY, _temporary(error, target)


def _temporary(error: Exception, target: Target) -> str:
    match error:
        case TimeoutError():
            text = f"no complete answer within {target.timeout_seconds:g} s"
        case ClientConnectorDNSError():
            text = f"the name {target.url.host} could not be resolved: {_said(error.os_error)}"
        case ClientConnectorCertificateError():
            text = f"TLS certificate: {error.certificate_error}"
        case ClientConnectorError():
            text = f"no connection: {_said(error.os_error)}"
        case ServerDisconnectedError():
            text = "the connection was closed without an answer"
        case ClientOSError() | OSError():
            text = f"the connection broke: {_said(error)}"
        case _:
            text = f"{type(error).__name__}: {error}"
    return text


def _said(error: BaseException) -> str:
    """Return what the system said, without the number that it said it by."""
    return getattr(error, "strerror", None) or str(error)
