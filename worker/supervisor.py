"""``python -m app worker``: starts the children, restarts what dies, stops all in good time.

Ingest and delivery are separate processes: a tokenizing thread beside the pump cut its loop from
139,855 to 3,554 round trips a second (design, section 3).

Each child holds the reading end of a pipe whose other end only the supervisor has; when the
supervisor dies, however it dies, the pipe closes and the child ends in good order. So a killed
supervisor leaves no orphans, and one that a platform restarts has no twins (D5 of the field notes).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Literal

import structlog

LOG = structlog.get_logger(__name__)

Kind = Literal["ingest", "delivery"]
KINDS: tuple[Kind, ...] = ("ingest", "delivery")

STOP_SECONDS = 25.0
"""From the signal to SIGKILL; platforms give 30 s (design, P7)."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A child that lived this long has recovered: its next death starts the back-off anew."""
PARENT_PIPE = "DOCYARD_PARENT_PIPE"

SINGLE_THREADED = {
    # scikit-learn's libraries would start a thread per core in every process, for tiny matrices.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass(kw_only=True)
class Child:
    """One worker process and its restarts."""

    kind: Kind
    number: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    start_at: float = 0.0
    command: Sequence[str] = field(default=())

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"{self.kind}-{self.number}"


class Supervisor:
    """Keeps the wanted number of children alive until it is told to stop."""

    def __init__(self, wanted: Mapping[Kind, int], environment: Mapping[str, str]) -> None:
        """Plan the children.

        Args:
            wanted: how many of each kind.
            environment: for the children; carries the settings.
        """
        self._reading_end, self._writing_end = os.pipe()
        os.set_inheritable(self._writing_end, False)  # noqa: FBT003  (the call's only form)
        self._environment = {
            **environment,
            **SINGLE_THREADED,
            PARENT_PIPE: str(self._reading_end),
        }
        # Starting is four times slower with it, and children start often enough.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._children = [
            Child(kind=kind, number=number, command=child_command(kind))
            for kind in KINDS
            for number in range(1, wanted.get(kind, 0) + 1)
        ]
        self._stopping = threading.Event()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while not self._stopping.is_set():
            now = time.monotonic()
            for child in self._children:
                self._look_after(child, now)
            self._stopping.wait(0.2)
        return self._stop()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        LOG.info("worker.stopping", signal=signal.Signals(number).name)
        self._stopping.set()

    def _look_after(self, child: Child, now: float) -> None:
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            if now - child.started_at > STEADY_SECONDS:
                child.pause_seconds = FIRST_PAUSE_SECONDS
            LOG.error("child.died", child=child.name, code=code, again_in=child.pause_seconds)
            child.process = None
            child.start_at = now + child.pause_seconds
            child.pause_seconds = min(child.pause_seconds * 2, LONGEST_PAUSE_SECONDS)
        if now >= child.start_at:
            child.process = subprocess.Popen(  # noqa: S603  (our own module)
                child.command,
                env=self._environment,
                pass_fds=(self._reading_end,),
                # A signal to the whole group reaches us; we pass it on once (D1).
                start_new_session=True,
            )
            child.started_at = now
            LOG.info("child.started", child=child.name, pid=child.process.pid)

    def _stop(self) -> int:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        code = 0
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                LOG.warning("child.killed", pid=process.pid, after_seconds=STOP_SECONDS)
                process.kill()
                process.wait()
                code = 1
        os.close(self._reading_end)
        os.close(self._writing_end)
        return code


def child_command(kind: Kind) -> list[str]:
    """Return the command that runs a child."""
    return [sys.executable, "-m", "worker.child", kind]
