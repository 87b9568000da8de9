"""Control groups: what Linux grants the container or the service that a process runs in.

Version 2 has one tree, version 1 one for each controller. A container usually sees its own group as
the root. A service of systemd, or a container with the host's tree, stands somewhere below, and
every group above it limits it too: so all of them are asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED_BYTES = 1 << 60
"""Version 1 says "no limit" by an absurd number; version 2 says "max"."""


class Cgroups:
    """The groups of this process."""

    def __init__(self, root: Path = ROOT, own: Path = OWN) -> None:
        """Keep the places; nothing is read yet.

        Args:
            root: where the trees are mounted.
            own: lists this process's place in each.
        """
        self._root = root
        self._own = own

    def cpu_quotas(self) -> Iterator[int]:
        """Yield the processors that each group grants, rounded up, where it has a quota."""
        for folder in self._folders("cpu"):
            text = _read(folder / "cpu.max") or " ".join(
                _read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")
            )
            try:
                quota, period = (int(part) for part in text.split())
            except ValueError:  # "max 100000", or no such files
                continue
            if quota > 0 and period > 0:
                yield -(-quota // period)

    def memory_limits(self) -> Iterator[int]:
        """Yield the bytes that each group grants, where it has a limit."""
        for folder in self._folders("memory"):
            if (limit := _limit(folder)) is not None:
                yield limit

    def memory_left(self) -> Iterator[int]:
        """Yield the bytes that each group with a limit still has, its file cache counted as free.

        Cache is given back under pressure, so a group is full of it most of the time.
        """
        for folder in self._folders("memory"):
            limit = _limit(folder)
            used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
            if limit is not None and used.isdecimal():
                yield limit - int(used) + _file_cache(folder)

    def _folders(self, controller: str) -> Iterator[Path]:
        """Yield the process's own group and those above, of version 2 and of the controller's."""
        places = {self._root: PurePosixPath(), self._root / controller: PurePosixPath()}
        for line in _read(self._own).splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in {"", controller} or controller in controllers.split(","):
                tree = self._root / controller if controllers else self._root
                places[tree] = PurePosixPath(path.lstrip("/"))
        for tree, place in places.items():
            if ".." in place.parts:  # outside of what this container may see
                yield tree
                continue
            # The last parent of a relative path is ".", the root.
            yield from dict.fromkeys(tree / one for one in (place, *place.parents))


def _limit(folder: Path) -> int | None:
    text = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
    return int(text) if text.isdecimal() and int(text) < UNLIMITED_BYTES else None


def _file_cache(folder: Path) -> int:
    facts = dict(
        line.split(maxsplit=1) for line in _read(folder / "memory.stat").splitlines() if " " in line
    )
    # Of version 1 the total counts the groups below as well, as the limit does.
    return int(facts.get("total_inactive_file") or facts.get("inactive_file") or 0)


def _read(file: Path) -> str:
    """Return what is in a file, nothing when there is none."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
