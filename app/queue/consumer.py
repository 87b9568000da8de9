"""The consumer of the hardened broker: fetches early, waits on the doorbell, mends what is amiss.

Everything here runs in the queue's own fetching thread, except ``ack``, ``nack`` and ``requeue``,
which the working threads call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from dramatiq import Message, MessageProxy
from dramatiq.broker import Consumer
from dramatiq.errors import ConnectionClosed, DecodeError

from app.queue.connection import SERVER_ERRORS
from app.queue.messages import read_message, redis_id

if TYPE_CHECKING:
    from app.queue.broker import HardenedBroker

LOG = structlog.get_logger(__name__)

HAND_BACK = "hand_back"
"""Option of a message that must go back to its queue instead of being acknowledged (L1)."""
MEND_AT_ONCE = 50
"""Orphans whose bodies are looked at together: bodies may have a megabyte each."""


class HardenedConsumer(Consumer):
    """Consumes one queue for one thread; Dramatiq makes a new one after each connection error."""

    def __init__(
        self, broker: HardenedBroker, queue_name: str, prefetch: int, timeout: int
    ) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.timeout = timeout
        self._delayed = queue_name.endswith(".DQ")
        self._cache: deque[Message[Any]] = deque()
        self._held = broker.held[queue_name]
        self._wake = broker.wake_event(queue_name)
        self._chores_at = 0.0
        # With the connection Dramatiq drops all delayed messages from its memory (S1).
        if self._delayed:
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
        except SERVER_ERRORS as error:
            raise ConnectionClosed(error) from None
        if self._cache:
            message = self._cache.popleft()
            self._held.add(redis_id(message))
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
            self._settle("ack", message)

    def nack(self, message: MessageProxy) -> None:
        """Move the message to the dead letters.

        Raises:
            ConnectionClosed: not confirmed; Dramatiq tries again until it is.
        """
        self._settle("nack", message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put messages back to their queue.

        Raises:
            ConnectionClosed: not confirmed; the stock broker lets redis' own error pass, of which
                its consumer thread dies (S2).
        """
        ids = [redis_id(message) for message in messages]
        if not ids:
            return
        self._mark_waiting()
        try:
            self.broker.do_requeue(self.queue_name, *ids)
        except SERVER_ERRORS as error:
            raise ConnectionClosed(error) from None
        self._held.difference_update(ids)
        self._wake.set()

    def close(self) -> None:
        """Put back what no thread has been given."""
        left, self._cache = list(self._cache), deque()
        self.requeue(MessageProxy(message) for message in left)

    def _settle(self, command: str, message: MessageProxy) -> None:
        self._mark_waiting()
        try:
            self.broker.settle(command, self.queue_name, message)
        except SERVER_ERRORS as error:
            raise ConnectionClosed(error) from None
        # Only now: until Redis agrees the message is held, or it would be put back.
        self._held.discard(redis_id(message))
        # A place is free: refill at once instead of at the next poll.
        self._wake.set()

    def _mark_waiting(self) -> None:
        # Delayed messages are settled by the fetching thread; while it waits for Redis there, it
        # is not silent. The other queues' are settled by working threads, which prove nothing.
        if self._delayed:
            self.broker.mark_seen(self.queue_name)

    def _refill(self) -> None:
        # Cleared before looking: a push or an ack behind this line is noticed.
        self._wake.clear()
        room = self.prefetch - len(self._held)
        if room < max(1, self.prefetch // 2):
            return
        unreadable = 0
        for body in self.broker.do_fetch(self.queue_name, room):
            try:
                self._cache.append(read_message(body or b"", self.queue_name))
            except DecodeError:
                unreadable += 1
        if unreadable:
            # A fetch names no ids; they are among those which Redis believes ours.
            self._mend()

    def _do_chores(self) -> None:
        """Every few seconds: take over from the dead, and put back what we do not really hold."""
        if time.monotonic() < self._chores_at:
            return
        self.broker.maintain(self.queue_name)
        self._mend()
        self._chores_at = time.monotonic() + self.broker.chores_every_seconds

    def _mend(self) -> None:
        """Put back what Redis believes ours and is not, or give it up if it cannot be read.

        Left by a fetch whose answer was lost (S3), a connection that took delayed messages along
        (S1), or a body that is no message (P1).
        """
        believed = self.broker.unacknowledged(self.queue_name)
        # Read behind `believed`: what was acknowledged between the two is no longer there to put
        # back, and the script leaves it alone.
        orphans = list(believed - self._held - {redis_id(message) for message in self._cache})
        for start in range(0, len(orphans), MEND_AT_ONCE):
            self._put_back(orphans[start : start + MEND_AT_ONCE])

    def _put_back(self, orphans: Sequence[str]) -> None:
        bodies = self.broker.client.hmget(self.broker.keys.bodies(self.queue_name), orphans)
        # Acknowledged a moment ago, or without a body: the script then just forgets the id.
        gone = [orphan for orphan, body in zip(orphans, bodies, strict=True) if body is None]
        kept: list[str] = []
        for orphan, body in zip(orphans, bodies, strict=True):
            if body is None:
                continue
            if self._readable(orphan, body):
                kept.append(orphan)
            else:
                self.broker.do_nack(self.queue_name, orphan)
                LOG.error("message.unreadable", queue=self.queue_name, redis_message_id=orphan)
        if kept or gone:
            self.broker.do_requeue(self.queue_name, *kept, *gone)
        if kept:
            LOG.warning("messages.put_back", queue=self.queue_name, count=len(kept))

    def _readable(self, orphan: str, body: bytes) -> bool:
        try:
            return redis_id(read_message(body, self.queue_name)) == orphan
        except DecodeError:
            return False
