"""Where a destination's host is, with every address vetted.

The addresses that come back are numeric and are what is connected, so a name that changes its
answer between a check and a connection gains nothing: there is no second look-up (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from typing import Protocol

import aiodns

from app.domain.addresses import Network, refusal

LOOKUP_SECONDS = 5.0
"""Longest look-up as a whole."""
TRY_SECONDS = 2.0
TRIES = 2
ANSWER_LIVES_SECONDS = 10.0
MAX_ANSWERS = 10_000

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]
"""As ``socket.getaddrinfo`` returns them."""


class AddressRefused(OSError):
    """A destination's address is not one that may be called."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; DESTINATION_ALLOW_CIDRS can allow it")


class NameUnresolved(OSError):
    """A destination's name has no address, or nobody says which."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"the name {host} could not be resolved: {reason}")


class Names(Protocol):
    """Knows the addresses of names."""

    async def addresses(self, host: str) -> list[str]:
        """Return the numeric addresses of a name, of both families.

        Raises:
            OSError: it has none, or nobody says; ``strerror`` is the reason.
        """

    async def close(self) -> None:
        """End what is under way."""


class CaresNames:
    """Asks the name servers of the system, and its hosts file first, through c-ares.

    It asks for all names at once on a thread of its own, so a zone whose servers are dead delays
    only those who wait for it.
    """

    def __init__(self) -> None:
        """Start; on the running loop."""
        self._cares = aiodns.DNSResolver(timeout=TRY_SECONDS, tries=TRIES)

    async def addresses(self, host: str) -> list[str]:
        """Return the addresses of a name."""
        try:
            found = await self._cares.getaddrinfo(
                host,
                socket.AF_UNSPEC,
                type=socket.SOCK_STREAM,
                # Only of the families that this machine has addresses of itself.
                flags=socket.AI_ADDRCONFIG,
            )
        except aiodns.error.DNSError as error:
            raise OSError(None, str(error.args[-1])) from error
        return [node.addr[0].decode("ascii") for node in found.nodes]

    async def close(self) -> None:
        """End the look-ups that are under way."""
        await self._cares.close()


class VettedResolver:
    """Turns hosts into addresses that may be called.

    Answers are kept for some seconds, and who asks for the same name shares one look-up.
    """

    def __init__(self, allowed: Sequence[Network] = (), *, names: Names | None = None) -> None:
        """Keep the parts; on the running loop.

        Args:
            allowed: private networks that the operator vouches for.
            names: asked for addresses; c-ares unless given.
        """
        self._allowed = tuple(allowed)
        self._names = names or CaresNames()
        self._loop = asyncio.get_running_loop()
        self._answers: dict[str, tuple[float, list[str]]] = {}
        self._under_way: dict[str, asyncio.Task[list[str]]] = {}

    async def resolve(self, host: str, port: int) -> list[AddressInfo]:
        """Return the addresses of ``host`` that may be called, as what to connect to.

        Raises:
            AddressRefused: it has addresses, and none of them may be called.
            NameUnresolved: it has none, or the look-up took too long.
        """
        found = [host] if _is_literal(host) else await self._look_up(host)
        refusals = [refusal(one, self._allowed) for one in found]
        kept = [one for one, why in zip(found, refusals, strict=True) if why is None]
        if not kept:
            raise AddressRefused(next(filter(None, refusals)))
        return [_address_info(one, port) for one in kept]

    async def close(self) -> None:
        """End the look-ups that are under way."""
        for task in self._under_way.values():
            task.cancel()
        await self._names.close()

    async def _look_up(self, host: str) -> list[str]:
        fresh_until, answer = self._answers.get(host, (0.0, []))
        if self._loop.time() < fresh_until:
            return answer
        task = self._under_way.get(host)
        if task is None:
            task = asyncio.create_task(self._ask(host))
            self._under_way[host] = task
            task.add_done_callback(lambda done: self._on_asked(host, done))
        # Whoever gives up waiting does not end it for the others.
        return await asyncio.shield(task)

    async def _ask(self, host: str) -> list[str]:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await self._names.addresses(host)
        except TimeoutError:
            raise NameUnresolved(host, f"no answer within {LOOKUP_SECONDS:g} s") from None
        except OSError as error:
            raise NameUnresolved(host, error.strerror or str(error)) from error
        if not found:
            raise NameUnresolved(host, "it has no address")
        return found

    def _on_asked(self, host: str, task: asyncio.Task[list[str]]) -> None:
        del self._under_way[host]
        # Asking for the exception marks it as seen: the last waiter may be gone.
        if not task.cancelled() and task.exception() is None:
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[host] = (self._loop.time() + ANSWER_LIVES_SECONDS, task.result())


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _address_info(address: str, port: int) -> AddressInfo:
    if ":" in address:
        return (
            socket.AF_INET6,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
            "",
            (address, port, 0, 0),
        )
    return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
