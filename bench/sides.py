"""The sides of the comparison: Docyard, the tutorial's design and the floor, as real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

PROJECT = Path(__file__).parent.parent
START_SECONDS = 60.0
DRAIN_SECONDS = 240.0


@dataclass(kw_only=True)
class Side:
    """One system under load.

    Attributes:
        name: as the table shows it.
        web: command of the web process; ``{port}`` is put in.
        worker: command of the workers, empty for none.
        table: where documents end up.
        warm_seconds: what the workers need to load the model.
    """

    name: str
    database_url: str
    redis_url: str
    web: Sequence[str]
    worker: Sequence[str] = ()
    table: str = ""
    warm_seconds: float = 0.0
    url: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_web(self) -> None:
        """Start the web process and wait until it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._start([part.format(port=port) for part in self.web])
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > end:
                message = f"{self.name} did not start"
                raise RuntimeError(message)
            time.sleep(0.05)

    def start_worker(self) -> None:
        """Start the workers; send one document through, so that the model is loaded."""
        self._start(self.worker)
        self.warm()

    def warm(self) -> None:
        """Wait until the workers store; start-up is not what is measured."""
        end = time.monotonic() + START_SECONDS
        sent = 0
        while self.stored() < max(sent, 1):
            if time.monotonic() > end:
                message = f"{self.name}'s workers did not start"
                raise RuntimeError(message)
            if not sent:
                self.post('{"content": "first"}')
                sent = 1
            time.sleep(0.05)
        # Every process and thread has its turn, and loads its model.
        for number in range(64):
            self.post(f'{{"content": "warm {number}"}}')
        while self.stored() < sent + 64:
            time.sleep(0.05)
        time.sleep(self.warm_seconds)

    def post(self, body: str) -> None:
        """POST one document."""
        request = urllib.request.Request(  # noqa: S310  (http on loopback)
            f"{self.url}/documents", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  (likewise)
            answer.read()

    def stored(self) -> int:
        """Return how many documents are in the table."""
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute(f"SELECT count(*) FROM {self.table}").fetchone()  # noqa: S608  (a constant)
        return int(row[0]) if row else 0

    def queued(self) -> int:
        """Return how many messages are queued or being worked on."""
        client = redis.Redis.from_url(self.redis_url)
        try:
            return sum(int(client.hlen(key)) for key in client.scan_iter("*.msgs"))
        finally:
            client.close()

    def clear(self) -> None:
        """Forget all documents, in the queue as well."""
        client = redis.Redis.from_url(self.redis_url)
        client.flushall()
        client.close()
        if self.table:
            with psycopg.connect(self.database_url) as connection:
                connection.execute(f"TRUNCATE {self.table}")

    def drain(self, expected: int) -> float:
        """Wait until everything is stored; return when the last commit was seen.

        Raises:
            RuntimeError: documents were lost: the run is void.
        """
        end = time.monotonic() + DRAIN_SECONDS
        last, changed_at = -1, time.monotonic()
        while time.monotonic() < end:
            count = self.stored()
            if count != last:
                last, changed_at = count, time.monotonic()
            if count >= expected and not self.queued():
                return changed_at
            time.sleep(0.02)
        message = f"void: {self.name} stored {last} of {expected}"
        raise RuntimeError(message)

    def stop(self) -> None:
        """Stop what was started."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.processes.clear()

    def _start(self, command: Sequence[str]) -> None:
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=PROJECT,
                env={
                    **inherited,
                    "DATABASE_URL": self.database_url,
                    "REDIS_URL": self.redis_url,
                    "WEB_CONCURRENCY": "1",
                    "OMP_NUM_THREADS": "1",
                    "LOG_LEVEL": "error",
                    "DESTINATION_ALLOW_CIDRS": "127.0.0.0/8",
                },
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/openapi.json", timeout=1):  # noqa: S310  (loopback)
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False


UVICORN = ("--port", "{port}", "--loop", "uvloop", "--http", "httptools", "--no-access-log")


def docyard(database_url: str, redis_url: str) -> Side:
    """Return Docyard with one web process and the workers as they come."""
    return Side(
        name="docyard",
        database_url=database_url,
        redis_url=redis_url,
        web=("app", "serve", "--port", "{port}"),
        worker=("app", "worker"),
        table="documents",
        warm_seconds=1.0,
    )


def tutorial(database_url: str, redis_url: str, processes: int, threads: int) -> Side:
    """Return the tutorial's design with so many worker processes and threads."""
    return Side(
        name=f"tutorial -p {processes} -t {threads}",
        database_url=database_url,
        redis_url=redis_url,
        web=("uvicorn", "--factory", "bench.tutorial:make_app", *UVICORN),
        worker=("dramatiq", "bench.tutorial:setup", "-p", str(processes), "-t", str(threads)),
        table="tutorial_documents",
        warm_seconds=3.0,
    )


def floor(database_url: str, redis_url: str) -> Side:
    """Return the route that does nothing."""
    return Side(
        name="floor",
        database_url=database_url,
        redis_url=redis_url,
        web=("uvicorn", "bench.floor:app", *UVICORN),
    )
