"""Folders for Unix sockets: private, and short enough.

A socket's path has room for 108 bytes on Linux and 104 on macOS, and some shared file systems hold
no sockets at all. Where the data folder will not do, a temporary folder takes its place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path

_LONGEST_NAME = ".s.PGSQL.5432"


def socket_folder(preferred: Path, *, shared: bool = False) -> Path:
    """Make a folder in which servers can open sockets, and return it.

    Args:
        preferred: used where a socket can be opened in it.
        shared: another account runs a server and must reach it: /root, say, would not do.
    """
    # For Postgres and its clients a comma ends the name of a folder.
    if not shared and "," not in str(preferred) and _usable(preferred):
        return preferred
    folder = fallback_for(preferred)
    if _usable(folder):
        return folder
    folder = Path(tempfile.mkdtemp(prefix="docyard-"))
    _usable(folder)
    return folder


def fallback_for(preferred: Path) -> Path:
    """Return the temporary folder: the same each time, so that killed runs leave only one."""
    digest = hashlib.sha256(bytes(preferred)).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"docyard-{os.geteuid()}-{digest}"


def forget_sockets(preferred: Path) -> None:
    """Remove the temporary folder, if there is one."""
    shutil.rmtree(fallback_for(preferred), ignore_errors=True)


def _usable(folder: Path) -> bool:
    # One level deeper, where each server gets a folder of its own.
    probe = folder / "postgres" / f"{_LONGEST_NAME}.probe"
    try:
        folder.mkdir(exist_ok=True)
        if not _is_mine(folder):
            return False
        folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        for server in ("postgres", "valkey"):
            (folder / server).mkdir(exist_ok=True)
            (folder / server).chmod(0o700)
        probe.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as test:
            test.bind(str(probe))
        probe.unlink()
    except OSError:
        return False
    return True


def _is_mine(folder: Path) -> bool:
    """Whether nobody else prepared this predictable name for us."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
