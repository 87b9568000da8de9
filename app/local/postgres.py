"""A private Postgres on a data folder: reachable over a socket in a 0700 folder, by nobody else."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from app.local.errors import ServerFailed
from app.local.logfiles import last_lines
from app.local.processes import Mark, StopRule, child_environment, start_stamp, stop
from app.local.unprivileged import account_for, name_for, program_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.local.binaries import Program
    from app.local.processes import RunFolder

STOP = StopRule(stop_signal=signal.SIGINT, stop_rank=2, grace_seconds=20.0)
START_SECONDS = 60.0
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # What a 202 or a delivery's record promises rests on these two.
    "fsync": "on",
    "synchronous_commit": "on",
    # One machine, no replicas: less WAL, and checkpoints that do not interrupt a burst.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "shared_buffers": "256MB",
    "random_page_cost": "1.1",
    # Short statements only; compiling one would cost more than it could save.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
_READY_LINE = 7  # of postmaster.pid, as pg_ctl reads it


class PostgresServer:
    """One server process and its folder.

    Attributes:
        process: the running postmaster, None before ``start`` and after ``stop``.
    """

    def __init__(  # noqa: PLR0913 - the parts of one server, all by keyword
        self,
        program: Program,
        *,
        data: Path,
        sockets: Path,
        log: Path,
        run: RunFolder,
        name: str = "postgres",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self.sockets = sockets
        self.log = log
        self.name = name
        self.process: subprocess.Popen[bytes] | None = None
        self._run = run
        self._settings = {**SETTINGS, **(settings or {}), "unix_socket_directories": str(sockets)}
        self._account = account_for(data)
        self._program = program_for(program, self._account)
        self._popen = self._account.popen() if self._account else {}

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL of a database on this server."""
        return f"postgresql+psycopg://app@/{database}?host={quote(str(self.sockets), safe='/')}"

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        if self.process is None:
            message = f"{self.name} is not started"
            raise RuntimeError(message)
        return self.process.pid

    def initialise(self, *, sync: bool = True) -> bool:
        """Make the data folder unless it is there; return whether it was made now.

        It is made under another name first: a run that was killed half-way leaves nothing that
        looks finished.
        """
        if (self.data / "PG_VERSION").exists():
            return False
        unfinished = self.data.with_name(f"{self.data.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True, mode=0o700)
        if self._account:
            self._account.own(unfinished)
        command: list[str | Path] = [self._program.path.parent / "initdb"]
        command += ["-D", name_for(unfinished, self._account)]
        command += ["-U", "app", "--no-locale", "-E", "UTF8", "--auth=trust", "--no-instructions"]
        command += [] if sync else ["--no-sync"]
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.log.open("ab") as output:
            done = subprocess.run(  # noqa: S603 - a program that we found, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=unfinished,
                env=child_environment({"LC_ALL": "C"}),
                check=False,
                **self._popen,
            )
        if done.returncode != 0:
            raise ServerFailed("Postgres (initdb)", "failed", self.log, last_lines(self.log))
        unfinished.rename(self.data)
        return True

    def start(self) -> None:
        """Start the server and wait until it takes connections.

        Raises:
            ServerFailed: it did not come up; carries the end of its log.
        """
        if self._account:
            self._account.own(self.sockets)
        _end_unmarked_postmaster(self.data)
        deadline = time.monotonic() + START_SECONDS
        while True:
            logged = self.log.stat().st_size if self.log.exists() else 0
            self._spawn()
            if self._wait_until_ready(deadline):
                return
            with self.log.open("rb") as log:
                log.seek(logged)
                said = log.read()
            # Backends of a killed postmaster take a moment to notice; then it goes.
            if b"still in use" not in said or time.monotonic() > deadline:
                raise ServerFailed("Postgres", "did not start", self.log, last_lines(self.log))
            time.sleep(0.05)

    def _spawn(self) -> None:
        command: list[str | Path] = [self._program.path, "-D", name_for(self.data, self._account)]
        for setting, value in self._settings.items():
            command += ["-c", f"{setting}={value}"]
        self.process = self._run.start(
            self.name, command, log=self.log, rule=STOP, cwd=self.data, **self._popen
        )

    def _wait_until_ready(self, deadline: float) -> bool:
        while time.monotonic() < deadline and self.process and self.process.poll() is None:
            lines = _pid_file(self.data)
            if (
                len(lines) > _READY_LINE
                and lines[0] == str(self.pid)
                and lines[_READY_LINE].strip() == "ready"
            ):
                return True
            time.sleep(0.01)
        return False

    def stop(self) -> None:
        """Stop the server (SIGINT: no waiting for clients, nothing to recover afterwards)."""
        for mark in self._run.marks():
            if mark.name == self.name:
                self._run.stop(mark)
        if self.process is not None:
            self.process.wait()
            self.process = None


def _pid_file(data: Path) -> list[str]:
    try:
        return (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def _end_unmarked_postmaster(data: Path) -> None:
    """Deal with a postmaster.pid that no mark of ours accounts for.

    Either the launcher was killed between starting Postgres and noting it, and it still runs; or
    its number belongs to somebody else by now (a container counts from 1 again), in which case
    Postgres would refuse to start because of a process that has nothing to do with it.
    """
    lines = _pid_file(data)
    if not lines or not lines[0].isdigit():
        return
    pid = int(lines[0])
    stamp = start_stamp(pid)
    if stamp is None:
        return  # Postgres itself clears up after a dead one
    if _is_postmaster_of(data, pid, stamp, lines):
        stop(Mark.of("postgres", pid, stamp, STOP))
    else:
        (data / "postmaster.pid").unlink(missing_ok=True)


def _is_postmaster_of(data: Path, pid: int, stamp: str, lines: list[str]) -> bool:
    working_directory = Path(f"/proc/{pid}/cwd")
    if Path("/proc/self/cwd").exists():
        try:
            return working_directory.samefile(data)
        except OSError:
            return False
    # macOS: compare the start that Postgres noted (third line) with what ps says.
    started = datetime.strptime(stamp, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    return abs(started.timestamp() - int(lines[2])) <= 3  # noqa: PLR2004 - seconds of slack
