"""How durable the Redis behind a 202 really is (design, P1)."""

from __future__ import annotations

from typing import Any

import redis.asyncio
from redis.exceptions import ResponseError

from app.domain.errors import SettingsInvalid
from app.settings import Durability

RANK: dict[str, int] = {"always": 3, "everysec": 2, "none": 1, "unknown": 0}


async def read_durability(client: redis.asyncio.Redis) -> Durability:
    """Ask the server what an acknowledged write is worth.

    Managed servers often forbid CONFIG; then INFO tells only whether there is an append-only
    file at all, not when it is flushed.

    Returns:
        ``always``: on disk. ``everysec``: on disk within a second. ``none``: in memory, or in a
        snapshot some time later. ``unknown``: the server does not say.
    """
    try:
        settings: dict[Any, Any] = await client.config_get("append*")
    except ResponseError:
        return await _by_info(client)
    text = {_text(key): _text(value) for key, value in settings.items()}
    return judge(text.get("appendonly"), text.get("appendfsync"))


async def _by_info(client: redis.asyncio.Redis) -> Durability:
    try:
        persistence: dict[str, Any] = await client.info("persistence")
    except ResponseError:
        return "unknown"
    return "unknown" if persistence.get("aof_enabled") else "none"


def judge(appendonly: str | None, appendfsync: str | None) -> Durability:
    """Return what the two settings come to."""
    if appendonly is None:
        return "unknown"
    if appendonly != "yes" or appendfsync == "no":
        return "none"
    return "always" if appendfsync == "always" else "everysec"


def require(found: Durability, wanted: str | None) -> None:
    """Refuse a server that promises less than is wanted.

    Raises:
        SettingsInvalid: says what the server does and what to set.
    """
    if wanted is None or RANK[found] >= RANK[wanted]:
        return
    sentence = (
        f"REQUIRE_DURABILITY={wanted}, but this Redis is {found!r}. Set `appendonly yes` and"
        f" `appendfsync {wanted}` on it, or take a plan that persists."
    )
    raise SettingsInvalid(sentence)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
