"""How many processes fit: from the processors and the memory that this container really has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
DELIVERY_BYTES = 110 * MIB
INGEST_BYTES = 150 * MIB
"""A process at work, with room for chunks of large documents; measured by ``make bench``."""
SUPERVISOR_BYTES = 50 * MIB
USABLE_SHARE = 0.9

CGROUP = Path("/sys/fs/cgroup")
UNLIMITED_BYTES = 1 << 60
"""Version 1 of control groups says "no limit" by an absurd number."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to use.

    Attributes:
        cores: processors that may be used, a container's quota counted, at least 1.
        memory: bytes.
    """

    cores: int
    memory: int


def this_machine(cgroup: Path = CGROUP) -> Machine:
    """Look at the machine, and at the limits of the container around this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cpu_quota(cgroup)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _memory_limit(cgroup)
    return Machine(
        cores=max(1, min(cores or 1, quota or cores or 1)),
        memory=min(memory, limit or memory),
    )


def most_ingest_processes(machine: Machine, delivery_processes: int) -> int:
    """Return how many ingest processes are worth having and fit the memory, at least 1."""
    free = machine.memory * USABLE_SHARE - SUPERVISOR_BYTES - delivery_processes * DELIVERY_BYTES
    return max(1, min(machine.cores, int(free // INGEST_BYTES)))


def _cpu_quota(cgroup: Path) -> int | None:
    """Return the cores that a quota grants, rounded up; None without one."""
    text = _read(cgroup / "cpu.max")
    if text is None:
        quota, period = (
            _read(cgroup / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")
        )
        text = f"{quota} {period}"
    try:
        granted, each = (int(part) for part in text.split())
    except ValueError:  # "max 100000", or no such file
        return None
    return -(-granted // each) if granted > 0 and each > 0 else None


def _memory_limit(cgroup: Path) -> int | None:
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(cgroup / file)
        if text is not None and text.isdigit():
            limit = int(text)
            return limit if limit < UNLIMITED_BYTES else None
    return None


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
