"""Who may come in: pure ASGI, because it runs before every request."""

from __future__ import annotations

import hmac
import ipaddress

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import problem, request_id_of
from app.settings import Settings

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Platforms probe these and carry no key."""


class Access:
    """Asks for the key where one is set; without one, answers only on loopback.

    ``serve`` refuses an open bind at start; behind another server (``uvicorn --factory``) only the
    address on which a request arrived tells.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        key = settings.admin_api_key
        self._expected = key.encode() if key else None
        self._anonymous = settings.allow_anonymous
        self._loopback: dict[str, bool] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 403."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif self._expected is not None:
            if self._has_key(scope):
                await self._app(scope, receive, send)
                return
            await self._refuse(
                scope, receive, send, 401, "Send the key as `Authorization: Bearer …`."
            )
        elif self._anonymous or self._on_loopback(scope):
            await self._app(scope, receive, send)
        else:
            sentence = (
                "This server can be reached from other machines and has no ADMIN_API_KEY;"
                " set one, or ALLOW_ANONYMOUS=1."
            )
            await self._refuse(scope, receive, send, 403, sentence)

    def _has_key(self, scope: Scope) -> bool:
        assert self._expected is not None  # noqa: S101  (asked before)
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        # In any case: RFC 9110, section 11.1.
        return scheme.lower() == b"bearer" and hmac.compare_digest(key, self._expected)

    def _on_loopback(self, scope: Scope) -> bool:
        server = scope.get("server")
        if server is None or server[1] is None:  # a unix socket
            return True
        host = server[0]
        if host not in self._loopback:
            try:
                self._loopback[host] = ipaddress.ip_address(host).is_loopback
            except ValueError:
                self._loopback[host] = host in {"localhost", "testserver"}
        return self._loopback[host]

    @staticmethod
    async def _refuse(
        scope: Scope, receive: Receive, send: Send, status: int, sentence: str
    ) -> None:
        code = "unauthorized" if status == 401 else "anonymous_refused"  # noqa: PLR2004  (HTTP)
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}  # noqa: PLR2004  (HTTP)
        request_id = request_id_of(HTTPConnection(scope))
        response = problem(status, code, sentence, request_id=request_id, headers=headers)
        await response(scope, receive, send)
