"""The consumer of the hardened broker: fetches early, waits on the doorbell, mends what is amiss.

Everything here runs in the queue's own fetching thread, except ``ack``, ``nack`` and ``requeue``,
which the working threads call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import structlog
from dramatiq import Message, MessageProxy
from dramatiq.broker import Consumer
from dramatiq.errors import ConnectionClosed, DecodeError

from app.queue.connection import NETWORK_ERRORS

if TYPE_CHECKING:
    from app.queue.broker import HardenedBroker

LOG = structlog.get_logger(__name__)

HAND_BACK = "hand_back"
"""Option of a message that must go back to its queue instead of being acknowledged (L1)."""


class HardenedConsumer(Consumer):
    """Consumes one queue for one thread; Dramatiq makes a new one after each connection error."""

    def __init__(
        self, broker: HardenedBroker, queue_name: str, prefetch: int, timeout: int
    ) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.timeout = timeout
        self._cache: deque[Message[Any]] = deque()
        self._held = broker.held[queue_name]
        self._wake = broker.wake_event(queue_name)
        self._chores_at = 0.0
        # With the connection Dramatiq drops all delayed messages from its memory (S1).
        if queue_name.endswith(".DQ"):
            self._held.clear()
        broker.mark_seen(queue_name)

    def __next__(self) -> MessageProxy | None:
        """Return a message, or None after waiting for one for a while.

        Raises:
            ConnectionClosed: Redis is away; what was fetched is put back by the next consumer.
        """
        self.broker.mark_seen(self.queue_name)
        try:
            self._do_chores()
            if not self._cache:
                self._refill()
        except NETWORK_ERRORS as error:
            raise ConnectionClosed(error) from None
        if self._cache:
            message = self._cache.popleft()
            self._held.add(_redis_id(message))
            return MessageProxy(message)
        self._wake.wait(self.broker.poll_seconds)
        return None

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge; hand the message back instead if its retry could not be enqueued.

        Raises:
            ConnectionClosed: not confirmed; Dramatiq tries again until it is.
        """
        if message.options.get(HAND_BACK):
            self.requeue([message])
        else:
            self._confirm(self.broker.do_ack, message)

    def nack(self, message: MessageProxy) -> None:
        """Move the message to the dead letters.

        Raises:
            ConnectionClosed: not confirmed; Dramatiq tries again until it is.
        """
        self._confirm(self.broker.do_nack, message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put messages back to their queue.

        Raises:
            ConnectionClosed: not confirmed; the stock broker lets redis' own error pass, of which
                its consumer thread dies (S2).
        """
        ids = [_redis_id(message) for message in messages]
        if not ids:
            return
        try:
            self.broker.do_requeue(self.queue_name, *ids)
        except NETWORK_ERRORS as error:
            raise ConnectionClosed(error) from None
        self._held.difference_update(ids)
        self._wake.set()

    def close(self) -> None:
        """Put back what no thread has been given."""
        left, self._cache = list(self._cache), deque()
        self.requeue(MessageProxy(message) for message in left)

    def _confirm(self, command: Any, message: MessageProxy) -> None:
        redis_id = _redis_id(message)
        try:
            command(self.queue_name, redis_id)
        except NETWORK_ERRORS as error:
            raise ConnectionClosed(error) from None
        self._held.discard(redis_id)
        # A place is free: refill at once instead of at the next poll.
        self._wake.set()

    def _refill(self) -> None:
        # Cleared before looking: a push or an ack behind this line is noticed.
        self._wake.clear()
        room = self.prefetch - len(self._held)
        if room < max(1, self.prefetch // 2):
            return
        unread: list[bytes] = []
        for body in self.broker.do_fetch(self.queue_name, room):
            if body is None:
                continue
            try:
                message = Message.decode(body)
                _redis_id(message)
            except (DecodeError, KeyError, TypeError):
                unread.append(body)
            else:
                self._cache.append(message)
        if unread:
            self._give_up(unread)

    def _give_up(self, bodies: list[bytes]) -> None:
        """Move bodies that cannot be read to the dead letters (P1). A fetch names no ids."""
        known = self._held | {_redis_id(message) for message in self._cache}
        for redis_id in self.broker.unacknowledged(self.queue_name) - known:
            key = self.broker.keys.bodies(self.queue_name)
            if self.broker.client.hget(key, redis_id) in bodies:
                self.broker.do_nack(self.queue_name, redis_id)
                LOG.error("message.unreadable", queue=self.queue_name, redis_message_id=redis_id)

    def _do_chores(self) -> None:
        """Every few seconds: take over from the dead, and put back what we do not really hold."""
        if time.monotonic() < self._chores_at:
            return
        self.broker.maintain(self.queue_name)
        believed = self.broker.unacknowledged(self.queue_name)
        # Read behind `believed`: what was acknowledged between the two is no longer there to put
        # back, and the script leaves it alone.
        orphans = believed - self._held - {_redis_id(message) for message in self._cache}
        if orphans:
            LOG.warning("messages.put_back", queue=self.queue_name, count=len(orphans))
            self.broker.do_requeue(self.queue_name, *orphans)
        self._chores_at = time.monotonic() + self.broker.chores_every_seconds


def _redis_id(message: MessageProxy | Message[Any]) -> str:
    redis_id: str = message.options["redis_message_id"]
    return redis_id
