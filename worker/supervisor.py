"""``python -m app worker``: starts the children, restarts what dies, stops all in good time.

The number of ingest processes follows the queue (``worker/scaling.py``).

Ingest, delivery and collectors are separate processes: a tokenizing thread beside the pump cut its
loop from 139,855 to 3,554 round trips a second (design, section 3).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Literal

import structlog

from app.queue.connection import connect
from app.queue.depth import waiting
from app.queue.names import LANES
from app.settings import Settings, environment_with
from app.supervision.children import Child, Nursery
from app.supervision.signals import StopSignals
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
LOOK_SECONDS = 0.2

Kind = Literal["ingest", "delivery", "collectors"]
KINDS: tuple[Kind, ...] = ("ingest", "delivery", "collectors")

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
        self._nursery = Nursery({**CHILD_DEFAULTS, **environment})
        self._children = [
            _child(kind, number) for kind in KINDS for number in range(1, wanted.get(kind, 0) + 1)
        ]
        self._leaving: list[Child] = []
        self._follower = follower
        self._signals = StopSignals()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        self._signals.listen()
        if self._follower is not None:
            self._follower.start()
        heard = None
        while heard is None:
            now = time.monotonic()
            if self._follower is not None:
                settled = all(child.process for child in self._children)
                self._scale("ingest", self._follower.wanted(now, settled=settled), now)
            for child in self._children:
                self._nursery.look_after(child, now)
            self._leaving = [one for one in self._leaving if not self._nursery.has_left(one, now)]
            heard = self._signals.wait(LOOK_SECONDS)
        LOG.info("worker.stopping", signal=heard.name)
        return self._stop()

    def _scale(self, kind: Kind, wanted: int, now: float) -> None:
        running = [child for child in self._children if child.kind == kind]
        for number in range(len(running) + 1, wanted + 1):
            LOG.info("child.added", kind=kind, number=number)
            self._children.append(_child(kind, number))
        for child in running[wanted:]:
            LOG.info("child.let_go", child=child.name)
            self._children.remove(child)
            self._nursery.let_go(child, now)
            self._leaving.append(child)

    def _stop(self) -> int:
        if self._follower is not None:
            self._follower.stop()
        return self._nursery.stop([*self._children, *self._leaving])


def _child(kind: Kind, number: int) -> Child:
    return Child(name=f"{kind}-{number}", kind=kind, command=child_command(kind))


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
