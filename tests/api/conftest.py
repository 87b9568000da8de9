"""The web application in a real server on a thread, over real Postgres and Valkey."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from dataclasses import dataclass
from functools import partial

import pytest
import redis
import uvicorn

from app.api.connections import ConnectionLimits, GuardedProtocol, Patrol
from app.main import create_app
from app.settings import Settings

LANES = ("ingest.high", "ingest", "ingest.bulk")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Web:
    """A running application and a client for it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.patrol = Patrol(ConnectionLimits.of(settings))
        config = uvicorn.Config(
            create_app(settings),
            log_config=None,
            loop="uvloop",
            http=partial(GuardedProtocol, patrol=self.patrol),
            ws="none",
            timeout_keep_alive=settings.keep_alive_seconds,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self):
        self._thread.start()
        for _ in range(500):
            if self._server.started:
                return self
            threading.Event().wait(0.02)
        message = "the application did not start"
        raise AssertionError(message)

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()

    def ask(self, method, path, body=None, headers=None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def post(self, body, headers=None) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", "/documents", data, headers)

    def queued(self) -> dict[str, int]:
        client = redis.Redis.from_url(self.settings.redis_url)
        lengths = {lane: client.llen(f"docyard:{lane}") for lane in LANES}
        client.close()
        return {lane: length for lane, length in lengths.items() if length}


@pytest.fixture
def serve():
    """Start an application with the given settings."""
    running = []

    def start(**settings) -> Web:
        web = Web(Settings(**settings))
        web.__enter__()
        running.append(web)
        return web

    yield start
    for web in running:
        web.__exit__()


@pytest.fixture
def web(serve, database_url, redis_url):
    return serve(database_url=database_url, redis_url=redis_url, max_body_bytes=10_000)
