"""The data folder of ``make up``: ours by its marker, used by one launcher at a time by its lock.

::

    .docyard/
      docyard.json    marker: that the folder is ours, and which engines made its data
      encryption.key  0600: encrypts secrets in the database; without it they are lost
      lock            flock of the launcher (and of its guard, until everything is stopped)
      postgres/       data of the private servers
      valkey/
      sockets/        0700, unless the path is too long for a socket: then a temporary folder
      run/            one mark per process, and where the instance can be reached
      logs/
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pwd
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.domain.encryption import new_key, normalised_key
from app.local.errors import (
    EngineMismatch,
    FolderBusy,
    FolderForbidden,
    FolderForeign,
    FolderUnusable,
    KeyUnusable,
)
from app.local.processes import RunFolder, start_stamp
from app.local.sockets import forget_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.local.binaries import Program

PROJECT = Path(__file__).resolve().parents[2]
MARKER = "docyard.json"
KEY_FILE = "encryption.key"
_OURS = (MARKER, KEY_FILE, "lock", "postgres", "postgres.new", "valkey", "sockets", "run", "logs")


def folder_from(environment: Mapping[str, str]) -> DataFolder:
    """Return the folder that DOCYARD_DATA names, else ``.docyard`` in the project."""
    return DataFolder(Path(environment.get("DOCYARD_DATA") or PROJECT / ".docyard").resolve())


class DataFolder:
    """Paths, marker and lock of one data folder; making the object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = RunFolder(path / "run")
        self._lock: int | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the folder carries our marker."""
        return self._marker().get("made_by") == "docyard"

    def log(self, name: str) -> Path:
        """Return the log file of a part."""
        return self.path / "logs" / f"{name}.log"

    def claim(self) -> None:
        """Make the folder, or see that it is ours.

        Raises:
            FolderForeign: it holds something, but not our marker.
            FolderForbidden: it belongs to somebody else.
            FolderUnusable: it cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.is_ours:
                if any(self.path.iterdir()):
                    raise FolderForeign(self.path)
                self._write_marker({"made_by": "docyard", "engines": {}})
            if self.path.stat().st_uid == os.geteuid():
                # Postgres, as `nobody` under root, must pass through; nobody else needs to.
                self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        except PermissionError as error:
            raise FolderForbidden(self.path, self._owner()) from error
        except OSError as error:
            raise FolderUnusable(self.path, error.strerror or str(error)) from error

    def lock(self, *, waiting: Callable[[int], None] | None = None) -> int:
        """Take the folder for this process; return the descriptor that holds it.

        A launcher that was killed leaves a guard that still stops its parts and holds the lock
        meanwhile. Then ``waiting`` is called (with 0, 1, 2, …) until it does not; without it, that
        counts as busy too.

        Raises:
            FolderBusy: a launcher that is alive has it.
            FolderForbidden: it belongs to somebody else.
        """
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise FolderForbidden(self.path, self._owner()) from error
        with ExitStack() as undo:
            undo.callback(os.close, descriptor)
            for times in itertools.count():
                if _try_lock(descriptor):
                    break
                if holder := _holder(descriptor):
                    raise FolderBusy(self.path, f"process {holder}")
                if waiting is None:
                    raise FolderBusy(self.path, "the guard of a killed process")
                waiting(times)
            undo.pop_all()
        os.ftruncate(descriptor, 0)
        me = {"pid": os.getpid(), "stamp": start_stamp(os.getpid())}
        os.pwrite(descriptor, json.dumps(me).encode(), 0)
        self._lock = descriptor
        return descriptor

    def unlock(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def encryption_key(self) -> str:
        """Return the key that encrypts what the database holds; made at the first call.

        Raises:
            KeyUnusable: the file is damaged; another key could not read what is there.
        """
        path = self.path / KEY_FILE
        if not path.exists():
            _write_privately(path, new_key())
        try:
            return normalised_key(path.read_text())
        except (OSError, ValueError) as error:
            raise KeyUnusable(path) from error

    def encryption_keys(self, given: str | None) -> str:
        """Return the keys in force; ours stays behind those of the user, to read what it sealed.

        Args:
            given: the user's, as `ENCRYPTION_KEYS` has them.

        Raises:
            KeyUnusable: as `encryption_key`.
        """
        own = self.encryption_key()
        return f"{given},{own}" if given else own

    def engine(self, role: str) -> dict[str, str] | None:
        """Return which engine made the data of "postgres" or "valkey"; None when none did."""
        recorded: dict[str, str] | None = self._marker().get("engines", {}).get(role)
        return recorded if (self.path / role).exists() else None

    def choose_engine(
        self, role: str, find: Callable[[dict[str, str]], Program | None], best: Program
    ) -> Program:
        """Return the program that goes on with the data that is there, and note it.

        Args:
            role: "postgres" or "valkey".
            find: looks for a program that reads what is recorded.
            best: what is used where nothing is recorded; named when nothing fits.

        Raises:
            EngineMismatch: the data needs an engine that is not installed.
        """
        recorded = self.engine(role)
        program = find(recorded) if recorded else best
        if program is None:
            described = "{product} {version} ({source})".format_map(recorded or {})
            raise EngineMismatch(self.path / role, described, str(best))
        marker = self._marker()
        marker["engines"][role] = {
            "product": program.product,
            "version": program.version,
            "source": program.source,
        }
        self._write_marker(marker)
        return program

    def delete(self, *, keep_key: bool = False) -> list[Path]:
        """Delete what is ours, and the folder when that was all; return what was left alone.

        Args:
            keep_key: it is kept in any case where the database is not here: without it nobody can
                read what it sealed there.
        """
        key = self.path / KEY_FILE
        keep_key = key.exists() and (keep_key or not (self.path / "postgres").exists())
        kept = {MARKER, KEY_FILE} if keep_key else set()
        for name in [name for name in _OURS if name not in kept]:
            entry = self.path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        forget_sockets(self.path / "sockets")
        left = sorted(path for path in self.path.iterdir() if path.name not in kept)
        if not left and not kept:
            self.path.rmdir()
        return left

    def _marker(self) -> dict[str, Any]:
        try:
            marker = json.loads((self.path / MARKER).read_text())
        except (OSError, ValueError):
            return {}
        return marker if isinstance(marker, dict) else {}

    def _write_marker(self, marker: dict[str, Any]) -> None:
        unfinished = self.path / f"{MARKER}.{os.getpid()}"
        unfinished.write_text(json.dumps(marker, indent=2) + "\n")
        unfinished.replace(self.path / MARKER)

    def _owner(self) -> str:
        uid = next(path for path in (self.path, *self.path.parents) if path.exists()).stat().st_uid
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return str(uid)


def _write_privately(path: Path, text: str) -> None:
    """Write a file that only its owner reads: whole and on disk, or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(descriptor)
    unfinished.replace(path)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int | None:
    """Return the launcher that holds the lock, None when it is dead and only its guard does."""
    try:
        owner = json.loads(os.pread(descriptor, 1000, 0))
        pid = int(owner["pid"])
    except (ValueError, KeyError, TypeError):
        return None  # taken this moment, not noted yet
    return pid if start_stamp(pid) == owner["stamp"] else None
