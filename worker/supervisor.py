"""``python -m app worker``: starts the children, restarts what dies, stops all in good time.

The number of ingest processes follows the queue (``worker/scaling.py``).

Ingest, delivery and collectors are separate processes: a tokenizing thread beside the pump cut its
loop from 139,855 to 3,554 round trips a second (design, section 3).

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

from app.queue.connection import connect
from app.queue.depth import waiting
from app.queue.names import LANES
from app.settings import Settings, environment_with
from worker.scaling import QueueFollower, QueueWatch, Scaler
from worker.sizing import (
    INGEST_BYTES,
    MIB,
    Machine,
    delivery_processes,
    memory_left,
    most_ingest_processes,
    this_machine,
)

LOG = structlog.get_logger(__name__)

Kind = Literal["ingest", "delivery", "collectors"]
KINDS: tuple[Kind, ...] = ("ingest", "delivery", "collectors")

STOP_SECONDS = 25.0
"""From the signal to SIGKILL; platforms give 30 s (design, P7)."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A child that lived this long has recovered: its next death starts the back-off anew."""
PARENT_PIPE = "DOCYARD_PARENT_PIPE"

CHILD_DEFAULTS = {
    # numpy's libraries would start a thread per core in every process, for tiny matrices.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc: what a chunk took is given back behind it. An arena per thread, each with what it once
    # needed at most, left an ingest process at 240 MB after 30,000 documents; now 160, for the
    # same processor time. (Smaller thresholds save 20 MB more and cost a third of the time.)
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 20),
}
"""Environment of the children where it does not say otherwise."""


@dataclass(kw_only=True)
class Child:
    """One worker process and its restarts."""

    kind: Kind
    number: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    start_at: float = 0.0
    stop_by: float = 0.0
    command: Sequence[str] = field(default=())

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"{self.kind}-{self.number}"


class Supervisor:
    """Keeps the wanted number of children alive until it is told to stop."""

    def __init__(
        self,
        wanted: Mapping[Kind, int],
        environment: Mapping[str, str],
        follower: QueueFollower | None = None,
    ) -> None:
        """Plan the children.

        Args:
            wanted: how many of each kind, at first.
            environment: for the children; carries the settings.
            follower: says how many ingest processes there should be; left out, it stays as it
                begins.
        """
        self._reading_end, self._writing_end = os.pipe()
        os.set_inheritable(self._writing_end, False)  # noqa: FBT003  (the call's only form)
        self._environment = {
            **CHILD_DEFAULTS,
            **environment,
            PARENT_PIPE: str(self._reading_end),
        }
        # Starting is four times slower with it, and children start often enough.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._children = [
            Child(kind=kind, number=number, command=child_command(kind))
            for kind in KINDS
            for number in range(1, wanted.get(kind, 0) + 1)
        ]
        self._leaving: list[Child] = []
        self._follower = follower
        self._stopping = threading.Event()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._follower is not None:
            self._follower.start()
        while not self._stopping.is_set():
            now = time.monotonic()
            if self._follower is not None:
                settled = all(child.process for child in self._children)
                self._scale("ingest", self._follower.wanted(now, settled=settled), now)
            for child in self._children:
                self._look_after(child, now)
            self._leaving = [child for child in self._leaving if not self._has_left(child, now)]
            self._stopping.wait(0.2)
        return self._stop()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        LOG.info("worker.stopping", signal=signal.Signals(number).name)
        self._stopping.set()

    def _scale(self, kind: Kind, wanted: int, now: float) -> None:
        running = [child for child in self._children if child.kind == kind]
        for number in range(len(running) + 1, wanted + 1):
            LOG.info("child.added", kind=kind, number=number)
            self._children.append(Child(kind=kind, number=number, command=child_command(kind)))
        for child in running[wanted:]:
            LOG.info("child.let_go", child=child.name)
            self._children.remove(child)
            if child.process is not None:
                child.process.terminate()
                child.stop_by = now + STOP_SECONDS
                self._leaving.append(child)

    def _has_left(self, child: Child, now: float) -> bool:
        assert child.process is not None  # noqa: S101  (it was running when it was let go)
        if child.process.poll() is None and now > child.stop_by:
            LOG.warning("child.killed", pid=child.process.pid, after_seconds=STOP_SECONDS)
            child.process.kill()
        return child.process.poll() is not None

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
        if self._follower is not None:
            self._follower.stop()
        children = [*self._children, *self._leaving]
        running = [child.process for child in children if child.process is not None]
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


def supervisor(settings: Settings, only: str | None = None) -> Supervisor:
    """Return the supervisor that settings and machine ask for.

    Args:
        settings: of this process; the children get the same.
        only: one kind of process, None for all.
    """
    machine = this_machine(os.environ)
    wanted: dict[Kind, int] = {}
    if only in {None, "collectors"} and settings.collectors:
        wanted["collectors"] = 1
    if only in {None, "delivery"}:
        given = settings.delivery_processes
        wanted["delivery"] = delivery_processes(machine) if given is None else given
    follower: QueueFollower | None = None
    if only in {None, "ingest"}:
        least, most = _ingest_bounds(settings, machine, wanted.get("delivery", 0))
        wanted["ingest"] = least
        if most > least:
            follower = _follow_queue(settings, least, most)
        LOG.info(
            "worker.size",
            cores=machine.cores,
            memory_mb=machine.memory // MIB,
            delivery=wanted.get("delivery", 0),
            collectors=wanted.get("collectors", 0),
            ingest_min=least,
            ingest_max=most,
        )
    return Supervisor(wanted, environment_with(settings), follower)


def _ingest_bounds(settings: Settings, machine: Machine, delivering: int) -> tuple[int, int]:
    if settings.ingest_processes is not None:
        return settings.ingest_processes, settings.ingest_processes
    most = settings.worker_max or most_ingest_processes(machine, delivering)
    return settings.worker_min, max(settings.worker_min, most)


def _follow_queue(settings: Settings, least: int, most: int) -> QueueFollower:
    client = connect(settings.queue_url, verify_tls=settings.redis_tls_verify, most_connections=1)

    def room() -> bool:
        left = memory_left()
        return left is None or left >= INGEST_BYTES

    watch = QueueWatch(lambda: waiting(client, settings.redis_namespace, LANES))
    return QueueFollower(Scaler(least, most), watch, room)
