"""The private servers of one data folder: which programs, which folders, started side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.local.binaries import find_postgres, find_valkey
from app.local.errors import BinariesMissing
from app.local.postgres import PostgresServer
from app.local.sockets import socket_folder
from app.local.unprivileged import account_for
from app.local.valkey import ValkeyServer

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from app.local.binaries import Program
    from app.local.folder import DataFolder


class PrivateServers:
    """Postgres and Valkey of a data folder, each only where none was named from outside.

    Raises:
        BinariesMissing: a program is not installed.
        EngineMismatch: the data that is there needs another one.
    """

    def __init__(self, folder: DataFolder, *, with_postgres: bool, with_valkey: bool) -> None:
        self.postgres: PostgresServer | None = None
        self.valkey: ValkeyServer | None = None
        self._names: list[str] = []
        self._sockets = self._make_sockets(folder)
        if with_postgres:
            program = folder.choose_engine("postgres", _same_postgres, find_postgres())
            self._names.append(f"{program.product} {program.version}")
            self.postgres = PostgresServer(
                program,
                data=folder.path / "postgres",
                sockets=self._sockets / "postgres",
                log=folder.log("postgres"),
                run=folder.run,
            )
        if with_valkey:
            program = folder.choose_engine("valkey", _same_valkey, find_valkey())
            self._names.append(f"{program.product} {program.version}")
            self.valkey = ValkeyServer(
                program,
                data=folder.path / "valkey",
                sockets=self._sockets / "valkey",
                log=folder.log("valkey"),
                run=folder.run,
            )

    @staticmethod
    def _make_sockets(folder: DataFolder) -> Path:
        account = account_for(folder.path / "postgres")
        hidden = account is not None and not account.can_reach(folder.path)
        return socket_folder(folder.path / "sockets", shared=hidden)

    def __str__(self) -> str:
        return " and ".join(self._names)

    def starters(self) -> list[Callable[[], None]]:
        """Return one function per server that starts it and waits until it answers."""
        starters: list[Callable[[], None]] = []
        if self.postgres:
            starters.append(_initialise_and_start(self.postgres))
        if self.valkey:
            starters.append(self.valkey.start)
        return starters

    def processes(self) -> dict[str, subprocess.Popen[bytes]]:
        """Return the running servers by name."""
        servers = (self.postgres, self.valkey)
        return {server.name: server.process for server in servers if server and server.process}


def _initialise_and_start(server: PostgresServer) -> Callable[[], None]:
    def start() -> None:
        server.initialise()
        server.start()

    return start


def _same_postgres(recorded: dict[str, str]) -> Program | None:
    """Find a Postgres of the same major version: others cannot read the data."""
    try:
        return find_postgres(major=_major(recorded))
    except BinariesMissing:
        return None


def _same_valkey(recorded: dict[str, str]) -> Program | None:
    """Find the same product, as new as what wrote the data or newer."""
    try:
        return find_valkey(product=recorded["product"], major=_major(recorded))
    except BinariesMissing:
        return None


def _major(recorded: dict[str, str]) -> int:
    return int(recorded["version"].split(".", maxsplit=1)[0])
