"""Name resolution and connecting for outgoing requests, with every address vetted.

Two public seams of aiohttp's connector are used. The resolver keeps only the addresses that may be
called; its answer is what is connected, so a name that changes its mind between look-ups gains
nothing. The socket factory sees the address of each single connection, IP literals included, which
never reach a resolver.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from aiohttp import AsyncResolver, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from app.domain.addresses import Network, refusal

LOOKUP_SECONDS = 5.0
"""Longest look-up as a whole."""
TRY_SECONDS = 2.0
TRIES = 2
ANSWER_LIVES_SECONDS = 10
KEEPALIVE_SECONDS = 15.0

AddressInfo = tuple[
    int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]
]


class AddressRefused(OSError):
    """A destination's address is not one that may be called; an OSError, as connectors expect."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}; DESTINATION_ALLOW_CIDRS can allow it")


class VettedResolver(AbstractResolver):
    """Asks another resolver and leaves out every address that may not be called.

    c-ares (the default) asks for all names at once on its own thread and reads the hosts file, so a
    zone whose servers are dead delays only those who wait for it. The connector keeps answers for
    some seconds and lets requests for the same name share one look-up.
    """

    def __init__(
        self, allowed: Sequence[Network] = (), *, resolver: AbstractResolver | None = None
    ) -> None:
        self._allowed = tuple(allowed)
        self._resolver = resolver or AsyncResolver(timeout=TRY_SECONDS, tries=TRIES)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of ``host`` that may be called.

        Raises:
            AddressRefused: it has addresses, and none of them may be called.
            OSError: it has none, or the look-up took too long.
        """
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await self._resolver.resolve(host, port, family)
        except TimeoutError:
            message = f"the look-up took longer than {LOOKUP_SECONDS:g} s"
            raise OSError(None, message) from None
        refusals = [refusal(one["host"], self._allowed) for one in found]
        kept = [one for one, why in zip(found, refusals, strict=True) if why is None]
        if not kept:
            raise AddressRefused(next((why for why in refusals if why), "it has no address"))
        return kept

    async def close(self) -> None:
        """Close the other resolver."""
        await self._resolver.close()


def vetting_socket_factory(
    allowed: Sequence[Network] = (),
) -> Callable[[AddressInfo], socket.socket]:
    """Return a factory of sockets that refuses addresses which may not be called."""
    vouched = tuple(allowed)

    def make_socket(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if why := refusal(str(address[0]), vouched):
            raise AddressRefused(why)
        return socket.socket(family, kind, protocol)

    return make_socket


def make_connector(resolver: VettedResolver, allowed: Sequence[Network] = ()) -> TCPConnector:
    """Return a connector for all destinations; call it on the running loop.

    It has no limit of its own, neither in all nor per host: a limit across destinations would let
    one that hangs hold up the others.
    """
    return TCPConnector(
        limit=0,
        limit_per_host=0,
        ttl_dns_cache=ANSWER_LIVES_SECONDS,
        keepalive_timeout=KEEPALIVE_SECONDS,
        resolver=resolver,
        socket_factory=vetting_socket_factory(allowed),
    )
