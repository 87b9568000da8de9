"""How much room Redis has left, as far as the intake needs to know."""

from __future__ import annotations

import time
from typing import Any

import redis.asyncio

MOST_SHARE = 0.8
"""Share of ``maxmemory`` from which on nothing is taken in: a full Redis cannot even be drained,
because fetching and acknowledging write as well (S4)."""
LOOK_SECONDS = 1.0
LOOK_SHARE = 0.02
"""Look again after appending this share of ``maxmemory``, however little time has passed: on a
server of 25 MB a second of load is more than the room that is left."""


class MemoryWatch:
    """Remembers how full Redis is; asks at most once a second, and after each 2 % taken in."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._look_at = 0.0
        self._bytes_until_look = 0.0
        self._short = False

    async def short(self, size: int) -> bool:
        """Tell whether ``size`` more bytes are too many.

        Raises:
            redis.RedisError: Redis did not say.
        """
        self._bytes_until_look -= size
        if time.monotonic() >= self._look_at or self._bytes_until_look < 0:
            await self._look(size)
        return self._short

    async def _look(self, size: int) -> None:
        memory: dict[str, Any] = await self._client.info("memory")
        used, most = memory.get("used_memory", 0), memory.get("maxmemory", 0)
        self._short = bool(most) and used + size > most * MOST_SHARE
        self._bytes_until_look = most * LOOK_SHARE if most else float("inf")
        self._look_at = time.monotonic() + LOOK_SECONDS
