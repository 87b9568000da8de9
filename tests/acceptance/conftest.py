"""The whole system as processes: web and worker of a test's own, and a receiver."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

PROJECT = Path(__file__).parents[2]
START_SECONDS = 60.0


def until(condition: Callable[[], object], seconds: float = 30.0) -> object:
    """Wait for a condition and return what it said last."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        threading.Event().wait(0.02)
    return found


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and not yet waited for."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(part) for part in text.split()]


def hold_port() -> socket.socket:
    """Keep a free port for a server that listens on it later; nobody else gets it meanwhile.

    Let go, it would be anybody's for the seconds in which the server starts: tests that run beside
    this one take free ports all the time. Closing is up to the caller.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


class System:
    """Web and worker over given servers."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        redis_url: str,
        *,
        code: Path = PROJECT,
        **environment: str,
    ) -> None:
        self.folder = folder
        self.code = code
        inherited = {
            name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
        }
        self.environment = {
            **inherited,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "DESTINATION_ALLOW_CIDRS": "127.0.0.0/8",
            "LOG_FORMAT": "json",
            **environment,
        }
        self.processes: list[subprocess.Popen[bytes]] = []
        self.url = ""
        self._held: list[socket.socket] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{arguments[0]}-{len(self.processes)}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "app", *arguments],
            cwd=self.code,
            env=self.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def hold_port(self) -> str:
        """Take a port for the web until the system stops, and return it."""
        held = hold_port()
        port = held.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        if sys.platform == "linux":
            self._held.append(held)
        else:  # BSD lets nobody listen beside it
            held.close()
        return str(port)

    def start_web(self) -> subprocess.Popen[bytes]:
        process = self.start("serve", "--port", self.hold_port())
        assert until(lambda: self.get("/healthz")[0] == 200, START_SECONDS), self.logs()
        return process

    def logs(self) -> str:
        return "\n".join(path.read_text()[-4000:] for path in self.folder.glob("*.log"))

    def get(self, path: str, **headers: str) -> tuple[int, dict]:
        return self.ask("GET", path, None, **headers)

    def get_stored(self, document: str) -> dict:
        """Return a document when it is stored; a worker may have to start first."""
        found = 0, {}

        def stored() -> bool:
            nonlocal found
            found = self.get(f"/documents/{document}", Prefer="wait=20")
            return found[0] == 200

        assert until(stored, START_SECONDS), (found, self.logs())
        return found[1]

    def post(self, path: str, body: object, **headers: str) -> tuple[int, dict]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, data, **headers)

    def ask(self, method: str, path: str, data: bytes | None, **headers: str) -> tuple[int, dict]:
        request = urllib.request.Request(  # noqa: S310  (http on loopback)
            self.url + path,
            data,
            {"Content-Type": "application/json", **headers},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  (likewise)
                return response.status, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"{}")
        except OSError:
            return 0, {}

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=35)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for held in self._held:
            held.close()


@pytest.fixture
def make_system(tmp_path, database_url, redis_url):  # noqa: ARG001  (asked for, so that they outlive it)
    # Processes whose database is dropped first wait for it until they may no longer.
    made = []

    def make(database_url: str, redis_url: str, **options: object) -> System:
        folder = tmp_path / f"system-{len(made)}"
        folder.mkdir()
        made.append(System(folder, database_url, redis_url, **options))
        return made[-1]

    yield make
    for system in made:
        system.stop()


class Receiver:
    """A destination on a thread of its own; keeps what it gets."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = ""

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append((dict(request.headers), body))
        return web.Response(status=self.status)

    async def _serve(self) -> None:
        application = web.Application(client_max_size=64 << 20)
        application.router.add_post("/{path:.*}", self._take)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/hook"
        self._ready.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture
def receiver():
    with Receiver() as made:
        yield made
