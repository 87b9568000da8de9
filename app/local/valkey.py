"""A private Valkey (or Redis) on a data folder, with every write on disk before it is confirmed."""

from __future__ import annotations

import re
import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from app.local.errors import ServerFailed
from app.local.logfiles import last_lines
from app.local.processes import Mark, StopRule, start_stamp, stop

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from app.local.binaries import Program
    from app.local.processes import RunFolder

STOP = StopRule(stop_rank=3, grace_seconds=20.0)
START_SECONDS = 120.0  # reading a large append-only file takes its time
SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    # The promise behind a 202: on disk, and never evicted.
    "appendonly": "yes",
    "appendfsync": "always",
    "maxmemory-policy": "noeviction",
    # The append-only file holds everything; snapshots beside it would only cost.
    "save": "",
}


class ValkeyServer:
    """One server process and its folder.

    Attributes:
        socket: the path of its Unix socket.
        process: the running server, None before ``start`` and after ``stop``.
    """

    def __init__(  # noqa: PLR0913 - the parts of one server, all by keyword
        self,
        program: Program,
        *,
        data: Path,
        sockets: Path,
        log: Path,
        run: RunFolder,
        name: str = "valkey",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.socket = sockets / "valkey.sock"
        self.log = log
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._program = program
        self._run = run
        self._settings = {**SETTINGS, **(settings or {}), "unixsocket": str(self.socket)}

    def url(self, database: int = 0) -> str:
        """Return the redis-py URL of a database on this server."""
        return f"unix://{quote(str(self.socket), safe='/')}?db={database}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self.process is None:
            message = f"{self.name} is not started"
            raise RuntimeError(message)
        return self.process.pid

    def start(self) -> None:
        """Start the server and wait until it has read its data and answers.

        Raises:
            ServerFailed: it did not come up; carries the end of its log.
        """
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._end_unmarked_server()
        command: list[str | Path] = [self._program.path, "--dir", self.data]
        for setting, value in self._settings.items():
            command += [f"--{setting}", value]
        self.process = self._run.start(self.name, command, log=self.log, rule=STOP, cwd=self.data)
        deadline = time.monotonic() + START_SECONDS
        while ask(self.socket, b"PING") != b"+PONG\r\n":
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed("Valkey", "did not start", self.log, last_lines(self.log))
            time.sleep(0.01)

    def _end_unmarked_server(self) -> None:
        """Stop a server that still answers here although no mark accounts for it.

        Unlike Postgres, neither Valkey nor Redis minds a second server on its folder.
        """
        found = re.search(rb"process_id:(\d+)", ask(self.socket, b"INFO server"))
        if found and (stamp := start_stamp(pid := int(found[1]))):
            stop(Mark.of(self.name, pid, stamp, STOP))

    def stop(self) -> None:
        """Stop the server (SIGTERM: what is confirmed is on disk already)."""
        for mark in self._run.marks():
            if mark.name == self.name:
                self._run.stop(mark)
        if self.process is not None:
            self.process.wait()
            self.process = None


def ask(path: Path, command: bytes) -> bytes:
    """Send one inline command and return the beginning of the answer, b"" when nobody is there."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2.0)
        try:
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            return connection.recv(16_384)
        except OSError:
            return b""
