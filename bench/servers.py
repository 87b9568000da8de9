"""The Postgres and the Valkey of a run: durable as in production, in a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from app.local.binaries import find_postgres, find_valkey
from app.local.guard import start_guard
from app.local.postgres import PostgresServer
from app.local.processes import RunFolder
from app.local.valkey import ValkeyServer
from app.storage.migrate import migrate

POSTGRES_SETTINGS = {
    # So that Postgres itself says when a row was stored (bench/commits.py).
    "track_commit_timestamp": "on",
    "max_connections": "200",
}


@dataclass(frozen=True, slots=True)
class Servers:
    """Both servers, and a folder for what a run writes."""

    folder: Path
    postgres: PostgresServer
    valkey: ValkeyServer
    versions: str

    @property
    def redis_url(self) -> str:
        """Where Valkey is."""
        return self.valkey.url()

    def database_url(self, name: str = "postgres") -> str:
        """Return the URL of a database, as psycopg and the services take it."""
        return self.postgres.url(name).replace("postgresql+psycopg://", "postgresql://")

    def create_database(self, name: str) -> str:
        """Make another database with Docyard's tables; return its URL."""
        with psycopg.connect(self.database_url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        migrate(self.database_url(name))
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database that was made."""
        with psycopg.connect(self.database_url(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def set_fsync(self, policy: str) -> None:
        """Set Valkey's ``appendfsync``: ``always`` or ``everysec``."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.config_set("appendfsync", policy)


@contextmanager
def servers() -> Iterator[Servers]:
    """Start both; they end, and their folder goes, even when this process is killed."""
    # Short, because a socket's path may have about 100 bytes; passable for `nobody`, who runs
    # Postgres where we are root.
    folder = Path(tempfile.mkdtemp(prefix="docyard-bench-", dir="/tmp"))
    folder.chmod(0o711)
    run = RunFolder(folder / "run")
    guard = start_guard(run, remove=folder)
    try:
        yield _start(folder, run)
    finally:
        assert guard.stdin is not None  # noqa: S101  (asked for when it was started)
        guard.stdin.close()
        guard.wait(timeout=60)


def _start(folder: Path, run: RunFolder) -> Servers:
    sockets = folder / "s"
    for part in ("postgres", "valkey"):
        (sockets / part).mkdir(parents=True, mode=0o700)
    sockets.chmod(0o711)
    postgres_program, valkey_program = find_postgres(), find_valkey()
    postgres = PostgresServer(
        postgres_program,
        data=folder / "postgres",
        sockets=sockets / "postgres",
        log=folder / "postgres.log",
        run=run,
        settings=POSTGRES_SETTINGS,
    )
    valkey = ValkeyServer(
        valkey_program,
        data=folder / "valkey",
        sockets=sockets / "valkey",
        log=folder / "valkey.log",
        run=run,
    )
    postgres.initialise()
    postgres.start()
    valkey.start()
    migrate(postgres.url())
    versions = ", ".join(
        f"{one.product} {one.version}" for one in (postgres_program, valkey_program)
    )
    return Servers(folder, postgres, valkey, versions)
