"""Destinations of a run: they keep what they have confirmed, and each has a temper of its own."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
from aiohttp import web

MOODY_SHARE = 0.1
SLOWEST_SECONDS = 0.2


@dataclass
class Received:
    """What one receiver has answered with 2xx.

    Attributes:
        tokens: by webhook-id, the number in the content; a second one is a fault.
        documents: ids, in hexadecimal.
        requests: answered in any way.
        repeats: confirmed before.
    """

    tokens: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    documents: set[str] = field(default_factory=set)
    requests: int = 0
    repeats: int = 0

    def keep(self, webhook_id: str, token: int) -> None:
        """Keep what is about to be confirmed."""
        if webhook_id in self.tokens:
            self.repeats += 1
        self.tokens[webhook_id].add(token)
        self.documents.add(webhook_id.split("_")[1])


Temper = Callable[[random.Random], tuple[int, float]]
"""Returns a status and seconds to wait before it."""

TEMPERS: Mapping[str, Temper] = {
    "steady": lambda _: (204, 0.0),
    "slow": lambda random_: (204, random_.uniform(0, SLOWEST_SECONDS)),
    "moody": lambda random_: (503 if random_.random() < MOODY_SHARE else 204, 0.0),
}


class Receivers:
    """All of them on one port, told apart by path; ``with`` starts and stops them.

    Args:
        seed: of their tempers.
        host: the address to listen on.
        port: 0 takes a free one.
    """

    def __init__(self, seed: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.received = {name: Received() for name in TEMPERS}
        self.host = host
        self.port = port
        self._random = random.Random(f"receivers {seed}")  # noqa: S311  (no secret)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="receivers", daemon=True)

    async def _take(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        body = await request.read()
        status, wait = TEMPERS[name](self._random)
        if wait:
            await asyncio.sleep(wait)
        received = self.received[name]
        received.requests += 1
        if status < 300:
            received.keep(request.headers["webhook-id"], token_of(orjson.loads(body)["data"]))
        return web.Response(status=status)

    async def _serve(self) -> web.AppRunner:
        application = web.Application()
        application.router.add_post("/{name}", self._take)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, self.host, self.port).start()
        self.port = runner.addresses[0][1]
        return runner

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self._serve())
        # Not before it can be stopped.
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


def content_of(token: int, text: str) -> str:
    """Return a content that carries a token."""
    return f"{text} [{token}]"


def token_in(content: str) -> int:
    """Return the token of a content."""
    return int(content.rpartition("[")[2].rstrip("]"))


def token_of(data: Mapping[str, Any]) -> int:
    """Return the token of a delivered document; -1 where its parts are of different versions."""
    token = token_in(data["content"])
    return token if data["attributes"] == {"token": token} else -1
