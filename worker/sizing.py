"""How many processes fit: from the processors and the memory that this container really has."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.cgroups import Cgroups

MIB = 1 << 20
DELIVERY_BYTES = 110 * MIB
INGEST_BYTES = 220 * MIB
"""A process at work, with room for chunks of large documents: 160 MB after a load of small ones."""
SUPERVISOR_BYTES = 50 * MIB
USABLE_SHARE = 0.9
CORES_PER_DELIVERY = 4
"""One process delivers what a few ingest processes store."""
DELIVERY_SHARE = 0.25
"""Of the memory; the rest is for ingest processes."""
MEMINFO = Path("/proc/meminfo")
DYNO_RAM = "DYNO_RAM"
"""Set by Heroku's Python buildpack: the megabytes from which it derives WEB_CONCURRENCY."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to use.

    Attributes:
        cores: processors that may be used, a container's quota counted, at least 1.
        memory: bytes.
    """

    cores: int
    memory: int


def this_machine(environment: Mapping[str, str], cgroups: Cgroups | None = None) -> Machine:
    """Look at the machine, at the limits of the container around this process and its platform.

    Args:
        environment: may say what the platform grants.
        cgroups: where limits stand; the system's unless given.
    """
    groups = cgroups or Cgroups()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *groups.memory_limits()]
    if (granted := environment.get(DYNO_RAM, "")).isdecimal() and int(granted):
        memory.append(int(granted) * MIB)
    return Machine(cores=max(1, min([cores or 1, *groups.cpu_quotas()])), memory=min(memory))


def memory_left(cgroups: Cgroups | None = None, meminfo: Path = MEMINFO) -> int | None:
    """Return the bytes that new processes may use without swapping, None where nothing says."""
    left = list((cgroups or Cgroups()).memory_left())
    try:
        text = meminfo.read_text(encoding="ascii")
    except OSError:
        text = ""
    if found := re.search(r"^MemAvailable: +(\d+) kB", text, re.MULTILINE):
        left.append(int(found[1]) * 1024)
    return min(left, default=None)


def delivery_processes(machine: Machine) -> int:
    """Return how many delivery processes are worth having and fit the memory, at least 1."""
    fit = int((_usable_bytes(machine) * DELIVERY_SHARE) // DELIVERY_BYTES)
    return max(1, min(machine.cores // CORES_PER_DELIVERY, fit))


def most_ingest_processes(machine: Machine, delivery_processes: int) -> int:
    """Return how many ingest processes are worth having and fit the memory, at least 1."""
    free = _usable_bytes(machine) - delivery_processes * DELIVERY_BYTES
    return max(1, min(machine.cores, int(free // INGEST_BYTES)))


def _usable_bytes(machine: Machine) -> float:
    return machine.memory * USABLE_SHARE - SUPERVISOR_BYTES
