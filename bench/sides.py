"""The sides of the comparison: Docyard, the tutorial's design and the floor, as real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

import psycopg
import redis

from bench.commits import Commits, commits
from bench.results import Void

PROJECT = Path(__file__).parent.parent
START_SECONDS = 60.0
STALL_SECONDS = 60.0
"""Without any progress for so long, what is missing will not come."""
WARM_DOCUMENTS = 64


class Sender(Protocol):
    """Sends one document, given as JSON."""

    def __call__(self, body: str, /) -> None:
        """Return when it is accepted."""


@dataclass(kw_only=True)
class Side:
    """One system under load.

    Attributes:
        name: as the table shows it.
        web: command of the web process; ``{port}`` is put in.
        worker: command of the workers, empty for none.
        table: where documents end up, empty for nowhere.
        empty_database: makes the database anew.
        warm_seconds: what the workers need to load the model everywhere.
        environment: settings beside the usual ones.
        log: what the processes say.
    """

    name: str
    database_url: str
    redis_url: str
    web: Sequence[str]
    worker: Sequence[str] = ()
    table: str = ""
    empty_database: Callable[[], None] = lambda: None
    warm_seconds: float = 0.0
    environment: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    log: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    web_process: subprocess.Popen[bytes] | None = None
    worker_process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def running(self, *, workers: bool = False, clear: bool = True) -> Iterator[None]:
        """Run the processes, on empty tables and queues unless told otherwise."""
        if clear:
            self.clear()
        try:
            self.start_web()
            if workers:
                self.start_worker()
                self.warm(self.post)
            yield
        finally:
            self.stop()

    def start_web(self) -> None:
        """Start the web process and wait until it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.web_process = self._start([part.format(port=port) for part in self.web])
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > end or self.web_process.poll() is not None:
                raise RuntimeError(self._failure("did not start"))
            time.sleep(0.05)

    def start_worker(self) -> None:
        """Start the workers."""
        self.worker_process = self._start(self.worker)

    def warm(self, send: Sender) -> None:
        """Send documents until the workers store; start-up is not what is measured."""
        send('{"content": "first"}')
        end = time.monotonic() + START_SECONDS
        while not self.stored():
            if time.monotonic() > end:
                raise RuntimeError(self._failure("has workers that store nothing"))
            time.sleep(0.05)
        # Every process and thread has its turn, and loads its model.
        for number in range(WARM_DOCUMENTS):
            send(f'{{"content": "warm {number}"}}')
        self.drain()
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

    def commits(self, since: float) -> Commits:
        """Return when documents were stored, from a moment on.

        Raises:
            Void: some were rejected, or given up.
        """
        self._require_no_rejects()
        return commits(self.database_url, self.table, since)

    def clear(self) -> None:
        """Forget all documents, in the queue as well, and write out what is dirty."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushall()
        self.empty_database()
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            # Whoever comes next shall not pay for the last one's pages.
            connection.execute("CHECKPOINT")

    def drain(self) -> None:
        """Wait until nothing is queued or being worked on.

        Raises:
            Void: the queue stands still.
        """
        end, last = time.monotonic() + STALL_SECONDS, -1
        with redis.Redis.from_url(self.redis_url) as client:
            while queued := sum(int(client.hlen(key)) for key in client.scan_iter("*.msgs")):
                if queued != last:
                    end, last = time.monotonic() + STALL_SECONDS, queued
                if time.monotonic() > end:
                    message = f"{self.name}: {queued} messages stay in the queue"
                    raise Void(message)
                time.sleep(0.02)

    def stop(self) -> None:
        """Stop what was started: the web first, as a deploy does."""
        running = [one for one in (self.web_process, self.worker_process) if one is not None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.web_process = self.worker_process = None

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        return subprocess.Popen(
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
                **self.environment,
            },
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _failure(self, what: str) -> str:
        self.log.seek(0)
        said = self.log.read().decode(errors="replace").splitlines()[-20:]
        return "\n".join([f"{self.name} {what}:", *said])

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/openapi.json", timeout=1):  # noqa: S310  (loopback)
                return True
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    def _require_no_rejects(self) -> None:
        with psycopg.connect(self.database_url) as connection:
            row = connection.execute("SELECT count(*) FROM rejected_documents").fetchone()
        with redis.Redis.from_url(self.redis_url) as client:
            dead = sum(int(client.zcard(key)) for key in client.scan_iter("*.XQ"))
        if (row and row[0]) or dead:
            message = f"{self.name} rejected documents"
            raise Void(message)


UVICORN = ("--port", "{port}", "--loop", "uvloop", "--http", "httptools", "--no-access-log")


def docyard(database_url: str, redis_url: str, name: str = "Docyard", *worker: str) -> Side:
    """Return Docyard with one web process and the workers as they come.

    Args:
        database_url: where it stores.
        redis_url: where it queues.
        name: as the table shows it.
        *worker: more arguments of ``python -m app worker``.
    """
    return Side(
        name=name,
        database_url=database_url,
        redis_url=redis_url,
        web=("app", "serve", "--port", "{port}"),
        worker=("app", "worker", *worker),
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
