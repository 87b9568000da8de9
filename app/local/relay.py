"""Passes webhooks on to a program of the user's, and its answers back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

TIMEOUT_SECONDS = 60.0
"""As long as the longest timeout that a destination may have."""

# Of a connection, not of the message (RFC 9110, 7.6.1); host and length are the next hop's own.
_NOT_PASSED_ON = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What the client would add by itself where the sender sent none.
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """What became of one request.

    Attributes:
        url: of the target.
        status, headers, body: what it answered; 502 or 504 where it did not.
        seconds: how long that took.
        fault: why there was no answer; None when there was.
    """

    url: str
    status: int
    headers: CIMultiDict[str]
    body: bytes
    seconds: float
    fault: str | None = None

    def response(self) -> web.Response:
        """Return the target's answer as ours."""
        return web.Response(status=self.status, headers=self.headers, body=self.body)


class Relay:
    """Passes requests on to one URL; ``async with`` opens and closes its connections."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NOT_ADDED,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def send(self, method: str, headers: Mapping[str, str], body: bytes) -> Relayed:
        """Send method, headers and body as they came; every end is an answer."""
        began_at = time.monotonic()
        try:
            async with self._session.request(
                method,
                self.url,
                headers=_passed_on(headers),
                data=body or None,
                allow_redirects=False,
            ) as answer:
                return Relayed(
                    url=self.url,
                    status=answer.status,
                    headers=_passed_on(answer.headers),
                    body=await answer.read(),
                    seconds=time.monotonic() - began_at,
                )
        except TimeoutError:
            fault, status = f"no answer within {TIMEOUT_SECONDS:g} s", HTTPStatus.GATEWAY_TIMEOUT
        except (aiohttp.ClientError, OSError, ValueError) as error:
            fault, status = str(error) or type(error).__name__, HTTPStatus.BAD_GATEWAY
        return Relayed(
            url=self.url,
            status=status,
            headers=CIMultiDict({"Content-Type": "text/plain; charset=utf-8"}),
            body=f"{self.url} did not answer: {fault}".encode(),
            seconds=time.monotonic() - began_at,
            fault=fault,
        )


def _passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    own = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _NOT_PASSED_ON | own
    )
