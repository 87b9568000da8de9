"""Dramatiq's Redis broker, hardened: no fault of Redis or of a process loses or parks a message.

The names in the comments (L1, S1, …) are faults that were reproduced on the stock broker; each has
a test in ``tests/queue`` that runs both brokers. Dramatiq's Lua script is used as it is.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import current_millis, dq_name, q_name
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Middleware
from redis.exceptions import NoScriptError, RedisError

from app.domain.identifiers import id_made_at, new_id
from app.queue.connection import SERVER_ERRORS
from app.queue.consumer import HardenedConsumer
from app.queue.liveness import Vital
from app.queue.messages import document_count
from app.queue.names import Keys
from app.queue.wake import WakeListener

HEARTBEAT_TIMEOUT_SECONDS = 15.0
CHORES_EVERY_SECONDS = 2.0
FOR_EVER_MS = 100 * 365 * 86_400_000
"""Dead letters stay until they are kept in Postgres; the stock seven days would drop them."""

MAINTAIN = "maintain"
"""No command of Dramatiq's script: it beats the heart, maintains the queue and does no more."""

COUNT_DOWN = """
if redis.call("sismember", KEYS[1], ARGV[1]) == 1
    and redis.call("hexists", KEYS[2], ARGV[1]) == 1 then
    redis.call("hincrby", KEYS[3], ARGV[2], -ARGV[3])
end
"""
"""Counts documents out of the queue exactly when the ``ack`` or ``nack`` behind it takes effect."""


class HardenedBroker(RedisBroker):
    """One per process.

    Attributes:
        held: per queue, the ids that this process really has: waiting for a thread, being worked
            on or delayed. What Redis believes it has beyond these is put back (S1, S3).
        seen: per queue, when its consumer last came by; a silent one means a broken process.
        parts: what else must work, by its name in the log.
    """

    def __init__(
        self,
        client: redis.Redis,
        *,
        namespace: str,
        middleware: list[Middleware],
        heartbeat_timeout_seconds: float = HEARTBEAT_TIMEOUT_SECONDS,
        chores_every_seconds: float = CHORES_EVERY_SECONDS,
        poll_seconds: float = 1.0,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]  # Dramatiq's is not annotated
            client=client,
            namespace=namespace,
            middleware=middleware,
            heartbeat_timeout=int(heartbeat_timeout_seconds * 1000),
            dead_message_ttl=FOR_EVER_MS,
        )
        self.keys = Keys(namespace)
        self.chores_every_seconds = chores_every_seconds
        self.poll_seconds = poll_seconds
        self.held: defaultdict[str, set[str]] = defaultdict(set)
        self.seen: dict[str, float] = {}
        self.parts: dict[str, Vital] = {}
        self._wake = WakeListener(client, namespace)
        _renew_identity_after_fork(self)

    @property
    def consumer_class(self) -> type[HardenedConsumer]:
        """Consumers of this broker."""
        return HardenedConsumer

    def enqueue(
        self, message: dramatiq.Message[Any], *, delay: int | None = None
    ) -> dramatiq.Message[Any]:
        """Enqueue, as the stock broker does but for three things.

        The id in Redis is a UUIDv7, whose age is that of the message and not of its last try; the
        documents are counted; and trouble with Redis is Dramatiq's own error: the stock consumer
        thread dies of redis-py's while it releases delayed messages (S2).
        """
        redis_id = str(_id_as_old_as(message))
        message = message.copy(options={"redis_message_id": redis_id})
        if delay is not None:
            message = message.copy(
                queue_name=dq_name(message.queue_name),
                options={"eta": current_millis() + delay},
            )
        self.emit_before("enqueue", message, delay)
        count = self._counting_up(message)
        try:
            self._call("enqueue", message.queue_name, redis_id, message.encode(), beside=count)
        except SERVER_ERRORS as error:
            raise ConnectionClosed(error) from error
        self.emit_after("enqueue", message, delay)
        return message

    def settle(self, command: str, queue: str, message: dramatiq.MessageProxy) -> None:
        """Run ``ack`` or ``nack`` on a message and count its documents out."""
        redis_id = message.options["redis_message_id"]
        beside: Sequence[Any] = ()
        if count := document_count(message):
            keys = (
                self.keys.unacknowledged(self.broker_id, queue),
                self.keys.bodies(queue),
                self.keys.queued,
            )
            beside = ("EVAL", COUNT_DOWN, len(keys), *keys, redis_id, q_name(queue), count)
        self._call(command, queue, redis_id, beside=beside)

    def maintain(self, queue: str) -> None:
        """Take over what dead workers hold of a queue, now; by dice it takes minutes (D3)."""
        self._call(MAINTAIN, queue)

    def wake_event(self, queue: str) -> threading.Event:
        """Return the event that a push to the queue sets, in this process and in others."""
        return self._wake.event(queue)

    def unacknowledged(self, queue: str) -> set[str]:
        """Return the ids that Redis believes this process has of a queue."""
        members = self.client.smembers(self.keys.unacknowledged(self.broker_id, queue))
        return {member.decode() for member in members if isinstance(member, bytes)}

    def mark_seen(self, queue: str) -> None:
        """Note that the queue's consumer came by."""
        self.seen[queue] = time.monotonic()

    def close(self) -> None:
        """Hand back what is still ours, stop listening and close the connections.

        Behind the worker's own end only those are ours that outlast its grace: nobody will
        acknowledge them, and a brother may start at once instead of after our last heartbeat.
        """
        self._wake.close()
        with contextlib.suppress(*SERVER_ERRORS):
            for queue in (*self.get_declared_queues(), *self.get_declared_delay_queues()):
                if left := self.unacknowledged(queue):
                    self._call("requeue", queue, *left)
            self.client.zrem(self.keys.heartbeats, self.broker_id)
        self.client.close()
        super().close()

    def _dispatch(self, command: str) -> Callable[..., Any]:
        """Return what Dramatiq calls as ``do_{command}``."""

        def dispatch(queue_name: str, *arguments: Any) -> Any:
            return self._call(command, queue_name, *arguments)

        return dispatch

    def _call(self, command: str, queue: str, *arguments: Any, beside: Sequence[Any] = ()) -> Any:
        """Run Dramatiq's script, in one transaction with the command ``beside`` if there is one."""
        script, values = (
            self.scripts["dispatch"],
            [
                command,
                current_millis(),
                queue,
                self.broker_id,
                self.heartbeat_timeout,
                self.dead_message_ttl,
                int(command == MAINTAIN),
                self._max_unpack_size(),  # type: ignore[no-untyped-call]  # likewise
                *arguments,
            ],
        )
        if beside:
            with self.client.pipeline(transaction=True) as pipeline:
                pipeline.execute_command(*beside)
                pipeline.evalsha(script.sha, 1, self.namespace, *values)
                answers = pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, RedisError) and not isinstance(answer, NoScriptError):
                    raise answer
            if not isinstance(answers[-1], NoScriptError):
                return answers[-1]
            # A new server does not know the script; what stands beside it has been done.
        return script(keys=[self.namespace], args=values)

    def _counting_up(self, message: dramatiq.Message[Any]) -> Sequence[Any]:
        count = document_count(message)
        lane = q_name(message.queue_name)
        return ("HINCRBY", self.keys.queued, lane, count) if count else ()


def _id_as_old_as(message: dramatiq.Message[Any]) -> uuid.UUID:
    try:
        return id_made_at(message.message_timestamp)
    except (TypeError, OverflowError):
        # Not by us; then it is as old as this try.
        return new_id()


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
