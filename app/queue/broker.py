"""Dramatiq's Redis broker, hardened: no fault of Redis or of a process loses or parks a message.

The names in the comments (L1, S1, …) are faults that were reproduced on the stock broker; each has
a test in ``tests/queue`` that runs both brokers. Dramatiq's Lua script is used as it is.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
import weakref
from collections import defaultdict
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Middleware

from app.queue.connection import NETWORK_ERRORS
from app.queue.consumer import HardenedConsumer
from app.queue.names import Keys
from app.queue.wake import WakeListener

HEARTBEAT_TIMEOUT_SECONDS = 15.0
CHORES_EVERY_SECONDS = 3.0


class HardenedBroker(RedisBroker):
    """One per process.

    Attributes:
        held: per queue, the ids that this process really has: fetched, waiting for a thread or
            being worked on. What Redis believes it has beyond these is put back (S1, S3).
        seen: per queue, when its consumer last came by; a silent one means a broken process.
    """

    def __init__(  # noqa: PLR0913  (each bounds something that tests shorten)
        self,
        client: redis.Redis,
        *,
        namespace: str,
        middleware: list[Middleware],
        heartbeat_timeout_seconds: float = HEARTBEAT_TIMEOUT_SECONDS,
        chores_every_seconds: float = CHORES_EVERY_SECONDS,
        poll_seconds: float = 1.0,
    ) -> None:
        super().__init__(
            client=client,
            namespace=namespace,
            middleware=middleware,
            heartbeat_timeout=int(heartbeat_timeout_seconds * 1000),
            # By dice, a dead worker on a quiet queue waits for minutes (D3): see `maintain`.
            maintenance_chance=0,
        )
        self.keys = Keys(namespace)
        self.chores_every_seconds = chores_every_seconds
        self.poll_seconds = poll_seconds
        self.held: defaultdict[str, set[str]] = defaultdict(set)
        self.seen: dict[str, float] = {}
        self._maintaining = threading.local()
        self._wake = WakeListener(client, namespace)
        _renew_identity_after_fork(self)

    @property
    def consumer_class(self) -> type[HardenedConsumer]:
        """Consumers of this broker."""
        return HardenedConsumer

    def enqueue(
        self, message: dramatiq.Message[Any], *, delay: int | None = None
    ) -> dramatiq.Message[Any]:
        """Enqueue; trouble with the connection is Dramatiq's own error, timeouts too (S2).

        The stock consumer thread dies of a redis error while it releases delayed messages.
        """
        try:
            return super().enqueue(message, delay=delay)
        except NETWORK_ERRORS as error:
            raise ConnectionClosed(error) from error

    def maintain(self, queue: str) -> None:
        """Take over what dead workers hold of a queue, now instead of by dice (D3)."""
        self._maintaining.now = True
        try:
            self.do_qsize(queue)
        finally:
            self._maintaining.now = False

    def wake_event(self, queue: str) -> threading.Event:
        """Return the event that a push to the queue sets, in this process and in others."""
        return self._wake.event(queue)

    def close(self) -> None:
        """Stop listening and close the connections."""
        self._wake.close()
        self.client.close()
        super().close()

    def do_fetch(self, queue: str, count: int) -> list[bytes | None]:
        """Take messages off a queue; they are ours until acknowledged."""
        bodies: list[bytes | None] = self._dispatch("fetch")(queue, count)
        return bodies

    def unacknowledged(self, queue: str) -> set[str]:
        """Return the ids that Redis believes this process has of a queue."""
        members = self.client.smembers(self.keys.unacknowledged(self.broker_id, queue))
        return {member.decode() for member in members}

    def mark_seen(self, queue: str) -> None:
        """Note that the queue's consumer came by."""
        self.seen[queue] = time.monotonic()

    def _should_do_maintenance(self, command: str) -> int:
        return int(
            getattr(self._maintaining, "now", False) or super()._should_do_maintenance(command)
        )


def _renew_identity_after_fork(broker: HardenedBroker) -> None:
    """Give a forked child an id of its own; with a shared one nobody recovers the dead (D2)."""
    reference = weakref.ref(broker)

    def renew() -> None:
        forked = reference()
        if forked is not None:
            forked.broker_id = str(uuid.uuid4())
            forked.held = defaultdict(set)
            forked._wake = WakeListener(forked.client, forked.namespace)  # noqa: SLF001  (our own)

    os.register_at_fork(after_in_child=renew)
