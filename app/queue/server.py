"""What the Redis in use says of itself: how durable it is, how large, and whether it evicts.

Asked on every new connection and not once at start, since the server behind a connection may be
another one: it was away when we started, was restarted with other settings, or a replica took over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis.asyncio
import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from app.domain.errors import DurabilityInsufficient
from app.queue.durability import enough, judge
from app.settings import Durability

LOG = structlog.get_logger(__name__)

KEEPS_ALL = "noeviction"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One server's word.

    Attributes:
        durability: what an acknowledged write is worth. ``always``: on disk. ``everysec``: on disk
            within a second. ``none``: in memory, or in a snapshot some time later. ``unknown``:
            the server does not say.
        maxmemory: bytes that it may use, None where there is no limit or it does not say.
        eviction: its ``maxmemory-policy`` if it may drop keys by it, None otherwise.
        replica: it follows another server, and takes nothing in.
    """

    durability: Durability
    maxmemory: int | None
    eviction: str | None
    replica: bool = False

    @property
    def warning(self) -> str | None:
        """What an operator should mend, though documents can be taken in."""
        if self.eviction is None:
            return None
        return (
            f"maxmemory-policy is {self.eviction}: when memory is short, accepted documents may be"
            f" dropped; set it to {KEEPS_ALL}"
        )


async def read_facts(connection: AbstractConnection) -> ServerFacts:
    """Ask a server; what it may not tell counts as unknown.

    Managed servers often forbid CONFIG; then INFO tells only whether there is an append-only
    file at all, not when it is flushed.

    Raises:
        redis.RedisError: it did not answer.
    """
    settings = await _ask(connection, "CONFIG", "GET", "append*")
    memory = _fields(await _ask(connection, "INFO", "memory"))
    if settings is None:
        persistence = _fields(await _ask(connection, "INFO", "persistence"))
        # An append-only file may be flushed at any time; without one nothing is.
        durability: Durability = "none" if persistence.get("aof_enabled") == "0" else "unknown"
    else:
        texts = [_text(one) for one in settings]
        found = dict(zip(texts[::2], texts[1::2], strict=False))
        durability = judge(found.get("appendonly"), found.get("appendfsync"))
    replication = _fields(await _ask(connection, "INFO", "replication"))
    limit, policy = memory.get("maxmemory", ""), memory.get("maxmemory_policy")
    return ServerFacts(
        durability=durability,
        maxmemory=int(limit) or None if limit.isdigit() else None,
        eviction=policy if policy not in (None, KEEPS_ALL) and limit != "0" else None,
        replica=replication.get("role") == "slave",
    )


class ServerWatch:
    """Remembers for one process what its Redis said last.

    Attributes:
        facts: None before the first connection.
    """

    def __init__(self, required: Durability | None = None) -> None:
        """Begin with nothing known.

        Args:
            required: what the server must promise for documents to be taken in.
        """
        self.facts: ServerFacts | None = None
        self.required = required

    async def connected(self, connection: AbstractConnection) -> None:
        """Greet the server as redis-py does, and ask it; for ``connect_async(on_connect=…)``."""
        await connection.on_connect()
        self._remember(await read_facts(connection))

    async def look(self, client: redis.asyncio.Redis) -> ServerFacts:
        """Ask again: settings may change without a new connection.

        Raises:
            redis.RedisError: Redis did not answer.
            OSError: likewise.
        """
        pool = client.connection_pool
        connection = await pool.get_connection()
        try:
            facts = await read_facts(connection)
        finally:
            await pool.release(connection)
        self._remember(facts)
        return facts

    async def require_durability(self, connection: AbstractConnection) -> None:
        """Return if the server promises what is required; asks only while it does not.

        Raises:
            DurabilityInsufficient: it does not.
            redis.RedisError: it did not answer.
            OSError: likewise.
        """
        if not self._enough():
            # It may have been mended since, and a dead connection shows only when it is used.
            self._remember(await read_facts(connection))
        self.confirm_durability()

    def confirm_durability(self) -> None:
        """Return if the server promised, when it was asked last, what is required.

        Raises:
            DurabilityInsufficient: it did not.
        """
        if not self._enough():
            raise DurabilityInsufficient(self._durability, self.required or "")

    @property
    def _durability(self) -> Durability:
        return self.facts.durability if self.facts else "unknown"

    def _enough(self) -> bool:
        return enough(self._durability, self.required)

    def _remember(self, facts: ServerFacts) -> None:
        if facts == self.facts:
            return
        self.facts = facts
        if not self._enough():
            LOG.error(
                "redis.durability_insufficient", found=facts.durability, required=self.required
            )
        if facts.warning:
            LOG.warning("redis.may_evict", reason=facts.warning)


async def _ask(connection: AbstractConnection, *command: str) -> Any:
    """Return the answer, None where the server refuses to give one."""
    await connection.send_command(*command, check_health=False)
    try:
        return await connection.read_response()
    except ResponseError:
        return None


def _fields(info: bytes | str | None) -> dict[str, str]:
    lines = _text(info or "").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines) if value}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
