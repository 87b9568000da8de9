"""A local receiver of webhooks: verifies signatures, knows repeats, hands on what it got."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from app.domain.errors import SignatureInvalid
from app.domain.signing import ID_HEADER
from app.domain.verifying import parse_key, verify
from app.local.errors import AddressUnusable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

LARGEST_BODY = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One received request.

    Attributes:
        webhook_id: the same for every attempt at one delivery; "" when there was none.
        repeated: whether that id was received before, as happens when an answer got lost.
        fault: why the signature does not hold; None when it does, or when there is no key.
        data: what the envelope carries; {} when the body is not one.
    """

    webhook_id: str
    repeated: bool
    fault: str | None
    data: dict[str, Any]


class Receiver:
    """An HTTP server on loopback; ``async with`` starts and stops it.

    Args:
        key: what to verify with, in any form that ``parse_key`` takes; None takes everything
            unverified.
        received: called with each webhook.
        port: 0 takes any free one.
    """

    def __init__(
        self, key: str | None, received: Callable[[Webhook], None], *, port: int = 0
    ) -> None:
        self._key = None if key is None else parse_key(key)
        self._received = received
        self._port = port
        self._seen: set[str] = set()
        application = web.Application(client_max_size=LARGEST_BODY)
        application.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)

    @property
    def url(self) -> str:
        """Where to send webhooks."""
        return f"http://127.0.0.1:{self._port}/"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise AddressUnusable("127.0.0.1", self._port, error.strerror or str(error)) from error
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        webhook_id = request.headers.get(ID_HEADER, "")
        fault = None
        if self._key is not None:
            try:
                verify(self._key, request.headers, body, now=time.time())
            except SignatureInvalid as error:
                fault = str(error)
        repeated = webhook_id in self._seen
        if webhook_id and fault is None:
            self._seen.add(webhook_id)
        self._received(
            Webhook(webhook_id=webhook_id, repeated=repeated, fault=fault, data=_data(body))
        )
        return web.Response(status=204) if fault is None else web.Response(status=401, text=fault)


def _data(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)["data"]
    except (ValueError, TypeError, KeyError):
        return {}
    return data if isinstance(data, dict) else {}
