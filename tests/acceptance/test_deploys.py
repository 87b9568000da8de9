"""A deploy loses no work (P7)."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress

import pytest
import redis
from aiohttp import web

from tests.acceptance.conftest import Receiver, children, until

LONGEST_SECONDS = 25.0


class SlowReceiver(Receiver):
    """Takes its time, so that requests are in flight whenever somebody looks."""

    def __init__(self):
        super().__init__()
        self.in_flight = 0

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append((dict(request.headers), body))
        self.in_flight += 1
        try:
            await asyncio.sleep(0.3)
        finally:
            self.in_flight -= 1
        return web.Response()


class Load:
    """Posts one document after the other until told to stop; knows which were accepted."""

    def __init__(self, system):
        self.accepted = []
        self.doubtful = 0
        self._system = system
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(40)

    def _run(self):
        while not self._stop.is_set():
            one = str(uuid.uuid4())
            if self._system.post("/documents", {"id": one, "content": f"text {one}"})[0] == 202:
                self.accepted.append(one)
            else:
                self.doubtful += 1
                self._stop.wait(0.05)


def webhook_ids(receiver):
    return [
        next(value for name, value in headers.items() if name.lower() == "webhook-id")
        for headers, _ in list(receiver.received)
    ]


def missing(load, receiver):
    bodies = b"".join(body for _, body in list(receiver.received)).decode()
    return [one for one in load.accepted if one not in bodies]


def unacknowledged(redis_url):
    client = redis.Redis.from_url(redis_url)
    found = sum(client.scard(key) for key in client.scan_iter("docyard:__acks__*"))
    client.close()
    return found


@pytest.mark.timeout(120)
def test_children_that_are_told_to_stop_by_many_at_once_stop(make_system, database_url, redis_url):
    # The platform tells the whole group, and the supervisor its children once more.
    system = make_system(database_url, redis_url, INGEST_PROCESSES="2")
    worker = system.start("worker")
    assert until(lambda: system.logs().count("child.ready") == 3, 60), system.logs()
    told = [worker.pid, *children(worker.pid)]
    for _ in range(500):
        for pid in told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    assert worker.wait(LONGEST_SECONDS + 5) == 0, system.logs()


@pytest.mark.timeout(240)
def test_sigterm_to_every_process_at_once_loses_and_repeats_nothing(
    make_system, database_url, redis_url
):
    with SlowReceiver() as receiver:
        system = make_system(database_url, redis_url, WEB_CONCURRENCY="2")
        site, worker = system.start_web(), system.start("worker")
        assert system.post("/destinations", {"key": "all", "url": receiver.url})[0] == 201
        with Load(system) as load:
            assert until(lambda: receiver.in_flight >= 3 and len(receiver.received) > 50, 60)
            parents = [site, worker]
            everybody = [pid for one in parents for pid in (one.pid, *children(one.pid))]
            in_flight, began_at = receiver.in_flight, time.monotonic()
            for pid in everybody:
                os.kill(pid, signal.SIGTERM)
            codes = [one.wait(LONGEST_SECONDS + 5) for one in parents]
            took = time.monotonic() - began_at
        assert codes == [0, 0], system.logs()
        assert took < LONGEST_SECONDS
        assert unacknowledged(redis_url) == 0
        assert receiver.in_flight == 0
        # The next release finds all the rest.
        system.start("worker")
        assert load.accepted
        assert until(lambda: not missing(load, receiver), 90), len(missing(load, receiver))
        repeats = sum(count - 1 for count in Counter(webhook_ids(receiver)).values())
        assert repeats <= in_flight
