"""The processes below one that was started: found in /proc, paused, their memory read."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
KIB = 1024


@dataclass(frozen=True, slots=True)
class Process:
    """A running process and how it was called."""

    pid: int
    command: str


def tree(pid: int) -> list[Process]:
    """Return a process and everything below it."""
    children: dict[int, list[int]] = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit() and (parent := _parent(folder)) is not None:
            children.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        found.append(Process(one, _command(PROC / str(one))))
    return found


def memory(pid: int) -> dict[str, float]:
    """Return ``rss`` and ``pss`` of a process in MB (10^6 bytes).

    PSS counts a page that n processes share as an n-th for each.
    """
    text = (PROC / str(pid) / "smaps_rollup").read_text()
    found = re.findall(r"^(Rss|Pss): +(\d+) kB", text, re.MULTILINE)
    return {name.lower(): int(size) * KIB / 1e6 for name, size in found}


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """Hold a process and everything below it still (SIGSTOP) while a queue is filled."""
    held = [process.pid for process in tree(pid)]
    for one in held:
        os.kill(one, signal.SIGSTOP)
    try:
        yield
    finally:
        for one in reversed(held):
            os.kill(one, signal.SIGCONT)


def _parent(folder: Path) -> int | None:
    try:
        stat = (folder / "stat").read_text()
    except OSError:
        return None
    # The second field is the program's name in parentheses and may hold anything.
    return int(stat.rpartition(")")[2].split()[1])


def _command(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
