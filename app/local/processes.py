"""Child processes that can be found and stopped later, even by somebody who did not start them.

Each child runs in its own session, so that Ctrl-C in the terminal reaches only the launcher, which
then stops the parts in order. A mark per child (pid and start stamp) lies in the run folder; a pid
that was given to another process since has another stamp and is never signalled.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A started process as written to the run folder.

    Attributes:
        name: "web", "worker", "postgres", "valkey"; also the file's name.
        pid: its process id, which is its session's and its group's too.
        stamp: when it started, as the operating system says; tells it from a later namesake.
        stop_signal: how to ask it to end.
        stop_rank: lower ones are stopped first.
        grace_seconds: how long it may take before it is killed.
    """

    name: str
    pid: int
    stamp: str
    stop_signal: int
    stop_rank: int
    grace_seconds: float

    @classmethod
    def of(cls, name: str, pid: int, stamp: str, rule: StopRule) -> Self:
        """Make the mark of a process that is to be stopped by ``rule``."""
        return cls(name=name, pid=pid, stamp=stamp, **asdict(rule))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return start_stamp(self.pid) == self.stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """How a kind of process is stopped; see ``Mark``."""

    stop_signal: signal.Signals = signal.SIGTERM
    stop_rank: int = 0
    grace_seconds: float = 10.0


def start_stamp(pid: int) -> str | None:
    """Return when a process started, or None when there is none (a zombie is none)."""
    if not Path("/proc/self/stat").exists():
        return _start_stamp_by_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in parentheses and may hold anything.
    state, *fields = stat.rpartition(")")[2].split()
    if state in {"Z", "X"}:
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{fields[18]}"


def _start_stamp_by_ps(pid: int) -> str | None:
    """Do the same where there is no /proc (macOS)."""
    shown = subprocess.run(  # noqa: S603 - fixed words and a number, no shell
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C", "TZ": "UTC"},
    ).stdout.strip()
    state, _, started = shown.partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


class RunFolder:
    """Starts children and keeps a mark of each, for this process and for its successors."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        rule: StopRule,
        environment: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> subprocess.Popen[bytes]:
        """Start ``command`` in its own session, its output appended to ``log``.

        Raises:
            OSError: it cannot be started, or its mark not be written; then nothing runs.
        """
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("ab") as output:
            child = subprocess.Popen(  # noqa: S603 - commands are built by the launcher, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=child_environment(environment),
                **popen,
            )
        # A child that is dead already has no stamp; its mark then matches nothing.
        stamp = start_stamp(child.pid) or "dead"
        try:
            self._write(Mark.of(name, child.pid, stamp, rule))
        except OSError:
            # Nobody would find it: no space is left, say.
            child.kill()
            child.wait()
            raise
        return child

    def _write(self, mark: Mark) -> None:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = self.path / f"{mark.name}.new"
        unfinished.write_text(json.dumps(asdict(mark)))
        unfinished.replace(self.path / f"{mark.name}.pid")

    def marks(self) -> list[Mark]:
        """Return the marks that are there, in the order in which to stop."""
        marks = []
        for file in self.path.glob("*.pid"):
            try:
                marks.append(Mark(**json.loads(file.read_text())))
            except (OSError, ValueError, TypeError):
                continue  # taken away meanwhile, or not ours
        return sorted(marks, key=lambda mark: mark.stop_rank)

    def forget(self, name: str) -> None:
        """Remove a mark whose process has ended."""
        (self.path / f"{name}.pid").unlink(missing_ok=True)

    def stop(self, mark: Mark) -> bool:
        """Ask a process to end, kill it after its grace; return whether it was killed.

        The mark is removed only when the process is gone, so that whoever stops this one in the
        middle of stopping leaves the rest to its successor.
        """
        killed = stop(mark)
        self.forget(mark.name)
        return killed

    def stop_all(self) -> list[str]:
        """Stop everything marked, in order; return the names of those that still ran."""
        ran = [mark for mark in self.marks() if mark.alive]
        for mark in self.marks():
            self.stop(mark)
        return [mark.name for mark in ran]


def stop(mark: Mark) -> bool:
    """Stop one process; see ``RunFolder.stop``."""
    if not mark.alive:
        return False
    killed = False
    _signal(mark.pid, mark.stop_signal)
    if not _wait_until_gone(mark, mark.grace_seconds):
        killed = True
        _signal(mark.pid, signal.SIGKILL)
        _wait_until_gone(mark, 10.0)
    # What it left in its group goes too: the group's number cannot have a new owner yet.
    _signal(-mark.pid, signal.SIGKILL)
    return killed


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return  # gone meanwhile; macOS answers EPERM for a group of zombies


def _wait_until_gone(mark: Mark, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while mark.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this environment plus ``environment``, fit for children.

    Without PYTHONDONTWRITEBYTECODE: it makes every start about four times slower.
    """
    merged = {**os.environ, **(environment or {})}
    merged.pop("PYTHONDONTWRITEBYTECODE", None)
    return merged
