"""Connections to receivers: opened to vetted addresses, kept for a while between requests."""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections import deque
from contextlib import nullcontext
from typing import NamedTuple

import aiohappyeyeballs

from app.domain.attempts import Trace
from worker.exchange import Connection
from worker.resolver import AddressInfo, VettedResolver

KEPT_SECONDS = 15.0
SOCKET_SHARE = 0.75
"""Of the files that the process may open; beyond it idle connections are closed for new ones."""
SECOND_ADDRESS_AFTER_SECONDS = 0.25
"""RFC 8305: when the first address does not answer, the next is tried beside it."""


class Origin(NamedTuple):
    """Where a connection leads; requests to the same one may share it."""

    host: str
    port: int
    tls: bool


class Connections:
    """Keeps idle connections; there is no limit on those in use.

    A limit across destinations would let one that hangs hold up the others; each destination has
    its own, above this.
    """

    def __init__(self, resolver: VettedResolver) -> None:
        self._resolver = resolver
        self._alive: set[Connection] = set()
        self._opening = 0
        self._idle: dict[Origin, deque[Connection]] = {}
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None

    def take(self, origin: Origin) -> Connection | None:
        """Return the idle connection that was used last, if there is one."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.abort()
        return None

    def give(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection for the next request, if it is good for one."""
        if not connection.usable:
            connection.abort()
            return
        connection.idle_since = self._loop.time()
        idle = self._idle.get(origin)
        if idle is None:
            idle = self._idle[origin] = deque()
        idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEPT_SECONDS, self._close_old)

    async def open(self, origin: Origin, deadline: float, trace: Trace) -> Connection:
        """Connect.

        Args:
            origin: where to.
            deadline: the loop's time by which the connection, with TLS, must stand.
            trace: takes the times of the phases.

        Raises:
            OSError: no address, none that may be called, or nobody there.
            TimeoutError: not by the deadline.
        """
        async with asyncio.timeout_at(deadline):
            with trace.phase("name_ms"):
                addresses = await self._resolver.resolve(origin.host, origin.port)
            self._opening += 1
            try:
                await self._make_room()
                return await self._connect(origin, addresses, trace)
            finally:
                self._opening -= 1

    async def close(self) -> None:
        """Close everything, in use or not."""
        if self._sweep:
            self._sweep.cancel()
        self._idle.clear()
        for connection in list(self._alive):
            connection.abort()
        # Aborting takes effect on the next turn, and uvloop complains of what its end finds open.
        await asyncio.sleep(0)

    async def _make_room(self) -> None:
        """Close what is idle where few files are left: running out of them fails deliveries."""
        most = SOCKET_SHARE * resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if 0 <= most < len(self._alive) + self._opening:
            for idle in self._idle.values():
                for connection in idle:
                    connection.abort()
            self._idle.clear()
            # Aborted ones are closed on the next turn.
            await asyncio.sleep(0)

    async def _connect(
        self, origin: Origin, addresses: list[AddressInfo], trace: Trace
    ) -> Connection:
        if len(addresses) == 1 and not origin.tls:
            # In half the time: the loop then needs no socket of Python's.
            host, port, *_ = addresses[0][-1]
            with trace.phase("connect_ms"):
                _, connection = await self._loop.create_connection(self._made, host, port)
            return connection
        with trace.phase("connect_ms"):
            sock = await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=SECOND_ADDRESS_AFTER_SECONDS, loop=self._loop
            )
        try:
            with trace.phase("tls_ms") if origin.tls else nullcontext():
                _, connection = await self._loop.create_connection(
                    self._made,
                    sock=sock,
                    ssl=self._tls_context() if origin.tls else None,
                    server_hostname=origin.host.rstrip(".") if origin.tls else None,
                )
        except BaseException:
            sock.close()
            raise
        return connection

    def _made(self) -> Connection:
        return Connection(self._alive)

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _close_old(self) -> None:
        oldest = self._loop.time() - KEPT_SECONDS
        for origin, idle in list(self._idle.items()):
            # The one used last is at the right end, so the old ones are at the left.
            while idle and (idle[0].idle_since <= oldest or not idle[0].usable):
                idle.popleft().abort()
            if not idle:
                del self._idle[origin]
        self._sweep = (
            self._loop.call_later(KEPT_SECONDS / 2, self._close_old) if self._idle else None
        )
