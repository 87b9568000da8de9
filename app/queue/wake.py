"""The doorbell of the queues: a push is heard at once instead of at the next poll.

Dramatiq's consumer has no blocking pop; polled, an idle queue is noticed after half a second. One
pub/sub connection per process brings that to about 2 ms. A lost announcement costs one poll.
"""

from __future__ import annotations

import threading

import redis

from app.queue.connection import SERVER_ERRORS
from app.queue.names import Keys

LISTEN_SECONDS = 1.0
PAUSE_SECONDS = 0.5


class WakeListener:
    """Sets an event per queue whenever something was pushed to it."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self._keys = Keys(namespace)
        self._events: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def event(self, queue: str) -> threading.Event:
        """Return the queue's event; the first call starts listening."""
        with self._lock:
            if queue not in self._events:
                self._events[queue] = threading.Event()
                self._changed.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wake", daemon=True)
                self._thread.start()
            return self._events[queue]

    def close(self) -> None:
        """Stop listening."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout=LISTEN_SECONDS * 3)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except SERVER_ERRORS:
                self._closed.wait(PAUSE_SECONDS)

    def _listen(self) -> None:
        with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
            self._changed.set()
            while not self._closed.is_set():
                if self._changed.is_set():
                    self._subscribe(subscription)
                message = subscription.get_message(timeout=LISTEN_SECONDS)
                if message is not None:
                    channel: bytes = message["channel"]
                    self._set(channel.decode())

    def _subscribe(self, subscription: redis.client.PubSub) -> None:
        self._changed.clear()
        with self._lock:
            queues = list(self._events)
        subscription.subscribe(*(self._keys.wake(queue) for queue in queues))
        # Something may have been pushed while nobody listened.
        for event in self._events.values():
            event.set()

    def _set(self, channel: str) -> None:
        event = self._events.get(channel.removeprefix(self._keys.wake("")))
        if event is not None:
            event.set()
