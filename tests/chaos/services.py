"""Web and worker as process groups that a platform would run: started, killed, started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson

from app.local.processes import RunFolder, StopRule
from bench.processes import Process, tree
from tests.chaos.fault_proxy import FaultProxy

PROJECT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.05
START_SECONDS = 90.0
STOP_SECONDS = 30.0
"""Behind SIGTERM; then platforms kill."""
STOP = StopRule(grace_seconds=STOP_SECONDS)
CHILDREN = ("ingest", "delivery")


class NotReady(Exception):
    """A part did not come up in time."""


class Service:
    """One process that the platform runs, with what is below it."""

    def __init__(
        self, name: str, *, run: RunFolder, logs: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        self._run = run
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._logged = 0

    def command(self) -> list[str]:
        """Return the arguments behind ``python -m app``."""
        raise NotImplementedError

    def start(self) -> None:
        """Start, as a platform does behind a crash or a deploy; does not wait."""
        self._logged = self.log.stat().st_size if self.log.exists() else 0
        self._process = self._run.start(
            self.name,
            [sys.executable, "-m", "app", *self.command()],
            log=self.log,
            rule=STOP,
            environment=self._environment,
            cwd=PROJECT,
        )

    def ready(self) -> bool:
        """Whether it does its work."""
        raise NotImplementedError

    def wait_ready(self) -> None:
        """Return once it does.

        Raises:
            NotReady: it does not.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if time.monotonic() > deadline:
                raise NotReady(f"{self.name} did not get ready; see {self.log}")
            time.sleep(POLL_SECONDS)

    @property
    def pid(self) -> int:
        """The process that the platform started."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether that process runs."""
        return self._process is not None and self._process.poll() is None

    def tree(self) -> list[Process]:
        """Return the process and all below it."""
        return tree(self.pid) if self.running else []

    def kill(self) -> None:
        """SIGKILL to the process that the platform started, and to no other."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """SIGTERM to every process at once, as Heroku does."""
        for one in self.tree():
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGTERM)

    def wait_gone(self) -> bool:
        """Wait until the process has ended; False when it had to be killed."""
        assert self._process is not None
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def _log_since_start(self) -> bytes:
        with self.log.open("rb") as log:
            log.seek(self._logged)
            return log.read()


class Web(Service):
    """A web process behind a proxy; each start takes a free port, which the proxy is told."""

    def __init__(self, name: str, proxy: FaultProxy, **parts: object) -> None:
        super().__init__(name, **parts)
        self.proxy = proxy
        self._port = 0

    def command(self) -> list[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.proxy.target = ("127.0.0.1", self._port)
        return ["serve", "--port", str(self._port)]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/healthz", timeout=2):
                return True
        except OSError:
            return False


class Worker(Service):
    """A supervisor with an ingest and a delivery process."""

    def command(self) -> list[str]:
        return ["worker", "--ingest-processes", "1", "--delivery-processes", "1"]

    def child(self, kind: str) -> int | None:
        """Return the process of a kind of work, None while there is none."""
        found = [one.pid for one in self.tree() if f"worker.child {kind}" in one.command]
        return min(found) if found else None

    def ready(self) -> bool:
        said = {
            event["pid"]
            for line in self._log_since_start().splitlines()
            if b'"child.ready"' in line and (event := orjson.loads(line))
        }
        return all(self.child(kind) in said for kind in CHILDREN)


def marked(name: str, value: str) -> list[Process]:
    """Return every process on this machine whose environment carries a mark."""
    mark = f"{name}={value}\0".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if mark in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if command:
                    found.append(Process(int(folder.name), command.strip()))
        except OSError:
            continue
    return found
