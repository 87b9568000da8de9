"""Dramatiq's stock Redis broker and ours, side by side, with everything slow made short."""

from __future__ import annotations

import threading
import time

import dramatiq
import pytest
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries

from app.queue.broker import HardenedBroker
from app.queue.connection import connect
from app.queue.retries import HardenedRetries

NS = "docyard"


def until(condition, seconds=10.0):
    """Wait for a condition; return whether it came."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return True
        except redis.RedisError:
            pass
        threading.Event().wait(0.02)
    return False


def stock(url, answer_seconds=5.0):
    return RedisBroker(
        client=connect(url, answer_seconds=answer_seconds),
        namespace=NS,
        heartbeat_timeout=1000,
        # Drawn at each command, of a million; its 1000 would let a fault be mended now and then.
        maintenance_chance=1,
        middleware=[Retries(min_backoff=50)],
    )


def ours(url, answer_seconds=5.0):
    return HardenedBroker(
        connect(url, answer_seconds=answer_seconds),
        namespace=NS,
        middleware=[HardenedRetries(min_backoff=50)],
        heartbeat_timeout_seconds=1.0,
        chores_every_seconds=0.3,
        poll_seconds=0.2,
    )


BOTH = pytest.mark.parametrize(
    ("make_broker", "survives"), [(stock, False), (ours, True)], ids=["stock", "ours"]
)


class Running:
    """A broker with a worker and a client to look with."""

    def __init__(self, broker, url, threads=2):
        self.broker = broker
        self.client = redis.Redis.from_url(url, socket_timeout=5)
        self.worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=100)

    def __enter__(self):
        self.worker.start()
        return self

    def __exit__(self, *_):
        self.worker.stop(timeout=2000)
        self.broker.close()
        self.broker.client.close()
        self.client.close()

    def empty(self, queue="q"):
        return all(self.client.hlen(f"{NS}:{name}.msgs") == 0 for name in (queue, f"{queue}.DQ"))
