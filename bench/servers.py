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
from bench import tutorial

POSTGRES_SETTINGS = {
    # So that Postgres itself says when a row was stored (bench/commits.py).
    "track_commit_timestamp": "on",
    "max_connections": "200",
}
MAINTENANCE = "postgres"
TEMPLATE = "bench_template"
DATABASE = "bench"


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

    def database_url(self, name: str = DATABASE) -> str:
        """Return the URL of a database, as psycopg and the services take it."""
        return self.postgres.url(name).replace("postgresql+psycopg://", "postgresql://")

    def empty_database(self, name: str = DATABASE) -> None:
        """Make a database with everybody's tables and nothing in them, in place of an older one."""
        with psycopg.connect(self.database_url(MAINTENANCE), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"')

    def drop_database(self, name: str) -> None:
        """Remove a database that was made."""
        with psycopg.connect(self.database_url(MAINTENANCE), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

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
    _make_template(postgres)
    versions = ", ".join(
        f"{one.product} {one.version}" for one in (postgres_program, valkey_program)
    )
    found = Servers(folder, postgres, valkey, versions)
    found.empty_database()
    return found


def _make_template(postgres: PostgresServer) -> None:
    url = postgres.url(MAINTENANCE).replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{TEMPLATE}"')
    migrate(postgres.url(TEMPLATE))
    tutorial.make_table(postgres.url(TEMPLATE))
