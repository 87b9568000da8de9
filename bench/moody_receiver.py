"""Receivers of every temper in one process: quick, hanging, failing, throttling.

The path says which: ``/ok/…`` answers 200 and notes when each webhook-id arrived, ``/hang/…``
answers after 30 seconds, ``/bad/…`` answers 503, and ``/throttle/N/MS`` takes MS milliseconds for a
request and answers 429 to whatever comes beyond N at a time. ``GET /arrivals`` returns
``[[path, webhook-id, monotonic seconds], …]`` since the last time it was asked, ``GET /answers``
likewise ``[[monotonic seconds, status], …]`` of the throttling ones.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop
from aiohttp import web

from bench.receiving import get

HANG_SECONDS = 30.0
SPAWN = multiprocessing.get_context("spawn")


class Moods:
    """What came, and what was answered."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[str, str, float]] = []
        self.answers: list[tuple[float, int]] = []
        self.in_flight: Counter[str] = Counter()

    async def take(self, request: web.Request) -> web.Response:
        """Answer a webhook as its path says."""
        arrived_at = time.monotonic()
        await request.read()
        mood, _, rest = request.match_info["path"].partition("/")
        if mood == "hang":
            await asyncio.sleep(HANG_SECONDS)
            return web.Response()
        if mood == "bad":
            return web.Response(status=503)
        if mood == "throttle":
            return await self._throttle(rest)
        self.arrivals.append((rest, request.headers["webhook-id"], arrived_at))
        return web.Response()

    async def _throttle(self, rest: str) -> web.Response:
        most, milliseconds = map(int, rest.split("/"))
        self.in_flight[rest] += 1
        try:
            is_refused = self.in_flight[rest] > most
            if not is_refused:
                await asyncio.sleep(milliseconds / 1000)
            status = 429 if is_refused else 200
            self.answers.append((time.monotonic(), status))
            return web.Response(status=status)
        finally:
            self.in_flight[rest] -= 1

    async def tell_arrivals(self, _: web.Request) -> web.Response:
        """Return what has arrived since the last time."""
        told, self.arrivals = self.arrivals, []
        return web.json_response(told)

    async def tell_answers(self, _: web.Request) -> web.Response:
        """Return what was answered since the last time."""
        told, self.answers = self.answers, []
        return web.json_response(told)


def run(port: int) -> None:
    """Serve until the process is ended."""
    moods = Moods()
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_get("/arrivals", moods.tell_arrivals)
    app.router.add_get("/answers", moods.tell_answers)
    app.router.add_post("/{path:.*}", moods.take)
    uvloop.install()
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


@contextmanager
def moody_receiver() -> Iterator[str]:
    """Run one in a process of its own; yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = SPAWN.Process(target=run, args=(port,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(100):
            try:
                get(f"{url}arrivals")
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.join(5)
        if process.is_alive():
            process.kill()
