"""A local receiver of webhooks: verifies signatures, knows repeats, answers as it is told."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from app.domain.errors import SignatureInvalid
from app.domain.signing import ID_HEADER
from app.domain.verifying import parse_key, verify
from app.local.errors import ReceiverAddressUnusable

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from app.local.relay import Relay, Relayed

LARGEST_BODY = 32 * 1024 * 1024
REMEMBERED_IDS = 10_000
SHUTDOWN_SECONDS = 1.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (recognised, not bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One received request, and how it is going to be answered.

    Attributes:
        received_at: when its last byte came.
        headers: as sent, in order.
        body: as sent, still compressed if it was.
        webhook_id: the same for every attempt at one delivery; "" when there was none.
        repeated: whether that id was received before, as happens when an answer got lost.
        verified: whether its signature holds; None when there is no key to tell by.
        fault: why the signature does not hold; None when it does, or when there is no key.
        status: what it is answered with.
        relayed: what the target answered; None when it was not passed on.
    """

    received_at: datetime
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    webhook_id: str
    repeated: bool
    verified: bool | None
    fault: str | None
    status: int
    relayed: Relayed | None = None

    def header(self, name: str) -> str:
        """Return the first header of a name (given in lower case), or ""."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def parsed(self) -> Any:
        """The body's JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def data(self) -> dict[str, Any]:
        """What the envelope or the CloudEvent carries; {} when the body is neither."""
        body = self.parsed
        if not isinstance(body, dict):
            return {}
        data = body if self.header("ce-specversion") else body.get("data")
        return data if isinstance(data, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How a receiver treats what it could verify.

    Attributes:
        status: answered to a share of the requests, without passing them on.
        share: of requests, 0 to 1, that this happens to.
        delay_seconds: how long every answer is held back.
        relay: where the others are passed on to; None answers 204.
    """

    status: int = HTTPStatus.SERVICE_UNAVAILABLE
    share: float = 0.0
    delay_seconds: float = 0.0
    relay: Relay | None = None


class Receiver:
    """An HTTP server on loopback; ``async with`` starts and stops it.

    Args:
        key: what to verify with, in any form that ``parse_key`` takes; None takes everything
            unverified.
        received: called with each webhook, before it is answered.
        host, port: where to listen; port 0 takes any free one.
        conduct: how to answer.
    """

    def __init__(
        self,
        key: str | None,
        received: Callable[[Webhook], None],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        conduct: Conduct | None = None,
    ) -> None:
        self._key = None if key is None else parse_key(key)
        self._received = received
        self._host = host
        self._port = port
        self._conduct = conduct or Conduct()
        self._seen: OrderedDict[str, None] = OrderedDict()
        application = web.Application(client_max_size=LARGEST_BODY)
        application.router.add_route("*", "/{path:.*}", self._take)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            # Signed, relayed and shown is what was sent, not what it unfolds to.
            auto_decompress=False,
            shutdown_timeout=SHUTDOWN_SECONDS + self._conduct.delay_seconds,
        )

    @property
    def url(self) -> str:
        """Where processes of this machine send webhooks."""
        host = _ANY_ADDRESS.get(self._host, self._host)
        return f"http://[{host}]:{self._port}/" if ":" in host else f"http://{host}:{self._port}/"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            reason = error.strerror or str(error)
            raise ReceiverAddressUnusable(self._host, self._port, reason) from error
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
        received_at = datetime.now(UTC)
        fault = self._fault(request, body)
        relayed = None
        if fault is not None:
            answer = web.Response(status=HTTPStatus.UNAUTHORIZED, text=fault)
        elif random.random() < self._conduct.share:  # noqa: S311  (a share, not a secret)
            answer = web.Response(status=self._conduct.status)
        elif self._conduct.relay is not None:
            relayed = await self._conduct.relay.send(request.method, request.headers, body)
            answer = relayed.response()
        else:
            answer = web.Response(status=HTTPStatus.NO_CONTENT)
        webhook_id = request.headers.get(ID_HEADER, "")
        self._received(
            Webhook(
                received_at=received_at,
                method=request.method,
                path=request.path_qs,
                headers=tuple(request.headers.items()),
                body=body,
                webhook_id=webhook_id,
                repeated=self._is_repeated(webhook_id, fault),
                verified=None if self._key is None else fault is None,
                fault=fault,
                status=answer.status,
                relayed=relayed,
            )
        )
        await asyncio.sleep(self._conduct.delay_seconds)
        return answer

    def _fault(self, request: web.Request, body: bytes) -> str | None:
        if self._key is None:
            return None
        try:
            verify(self._key, request.headers, body, now=time.time())
        except SignatureInvalid as error:
            return str(error)
        return None

    def _is_repeated(self, webhook_id: str, fault: str | None) -> bool:
        repeated = webhook_id in self._seen
        if webhook_id and fault is None:
            self._seen[webhook_id] = None
            if len(self._seen) > REMEMBERED_IDS:
                self._seen.popitem(last=False)
        return repeated
