"""Doorbells: at most one queued message per destination that has something to send.

Collectors are not queued for: a ring is an announcement, which the processes that carry them hear.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import redis

from app.domain.collectors import is_collector
from app.queue.messages import doorbell_message
from app.queue.names import COLLECT, DELIVER, Keys

FLAG_SECONDS = 30
RING = """
local rung, again = 0, ARGV[3] == "1"
for index = 3, #KEYS do
    local message_id, body = ARGV[4 + (index - 3) * 2], ARGV[5 + (index - 3) * 2]
    local known = redis.call("get", KEYS[index])
    if not known or (again and redis.call("hexists", KEYS[2], known) == 0) then
        redis.call("set", KEYS[index], message_id, "ex", ARGV[1])
        redis.call("hset", KEYS[2], message_id, body)
        redis.call("rpush", KEYS[1], message_id)
        rung = rung + 1
    end
end
if rung > 0 then
    redis.call("publish", ARGV[2], "")
end
return rung
"""
ANNOUNCE = """
local rung = 0
for _, flag in ipairs(KEYS) do
    if ARGV[3] == "1" or redis.call("exists", flag) == 0 then
        redis.call("set", flag, "1", "ex", ARGV[1])
        rung = rung + 1
    end
end
if rung > 0 then
    redis.call("publish", ARGV[2], "")
end
return rung
"""


class Doorbell:
    """Rings destinations; one per process."""

    def __init__(self, client: redis.Redis, *, namespace: str) -> None:
        self._client = client
        self._keys = Keys(namespace)
        self._script = client.register_script(RING)
        self._announce = client.register_script(ANNOUNCE)

    def ring(self, tenant_id: int, destination_ids: Sequence[uuid.UUID]) -> int:
        """Ring each destination that was not rung already; return how many were.

        The flag expires, so that a doorbell which is lost with its Redis is rung again.

        Raises:
            redis.RedisError: nothing may have been rung; the sweeper rings later.
        """
        return self._ring_all(tenant_id, destination_ids, again=False)

    def ring_again(self, tenant_id: int, destination_ids: Sequence[uuid.UUID]) -> int:
        """Ring destinations that wait and that nobody holds; return how many were rung.

        There a flag whose message is no longer queued means nothing: whoever took the message
        stopped or died before it read. It would keep the destination waiting until it expires.

        Raises:
            redis.RedisError: nothing may have been rung.
        """
        return self._ring_all(tenant_id, destination_ids, again=True)

    def _ring_all(
        self, tenant_id: int, destination_ids: Sequence[uuid.UUID], *, again: bool
    ) -> int:
        collectors = [one for one in destination_ids if is_collector(one)]
        others = [one for one in destination_ids if not is_collector(one)]
        return self._ring_collectors(tenant_id, collectors, again=again) + self._ring(
            tenant_id, others, again=again
        )

    def _ring_collectors(
        self, tenant_id: int, destination_ids: Sequence[uuid.UUID], *, again: bool
    ) -> int:
        if not destination_ids:
            return 0
        rung: int = self._announce(
            keys=[self._keys.rung(tenant_id, one) for one in destination_ids],
            args=[FLAG_SECONDS, self._keys.wake(COLLECT), int(again)],
        )
        return rung

    def _ring(self, tenant_id: int, destination_ids: Sequence[uuid.UUID], *, again: bool) -> int:
        if not destination_ids:
            return 0
        keys = [self._keys.ids(DELIVER), self._keys.bodies(DELIVER)]
        arguments: list[str | bytes | int] = [
            FLAG_SECONDS,
            self._keys.wake(DELIVER),
            int(again),
        ]
        for destination_id in destination_ids:
            keys.append(self._keys.rung(tenant_id, destination_id))
            arguments += doorbell_message(tenant_id, destination_id)
        rung: int = self._script(keys=keys, args=arguments)
        return rung

    def clear(self, tenant_id: int, destination_id: uuid.UUID) -> None:
        """Let the destination be rung again; the holder does so before it reads."""
        self._client.delete(self._keys.rung(tenant_id, destination_id))
