"""The log files of the parts: kept in bounds, shown at their end, followed."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 20 * 1024 * 1024
_TAIL_BYTES = 64 * 1024


def rotate(folder: Path) -> None:
    """Keep the last run's logs as ``….log.1`` and begin new ones."""
    for log in folder.glob("*.log"):
        log.replace(log.with_suffix(".log.1"))


def bound(folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
    """Cut a log that grew large; whoever writes it appends, and goes on at its new end."""
    for log in folder.glob("*.log"):
        if log.stat().st_size > most_bytes:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)


def last_lines(log: Path, count: int = 15) -> str:
    """Return the end of a log file; "" when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])


class Follower:
    """Reads what is appended to a log from now on, also over rotation and cutting."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._inode, self._position = self._now()
        self._rest = b""

    def new_lines(self) -> list[str]:
        """Return the complete lines since the last call."""
        inode, size = self._now()
        if inode != self._inode or size < self._position:
            self._inode, self._position, self._rest = inode, 0, b""
        if size == self._position:
            return []
        with self._log.open("rb") as file:
            file.seek(self._position)
            read = file.read(size - self._position)
        self._position += len(read)
        *lines, self._rest = (self._rest + read).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def _now(self) -> tuple[int, int]:
        try:
            found = self._log.stat()
        except OSError:
            return 0, 0
        return found.st_ino, found.st_size
