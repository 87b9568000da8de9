"""Connections and transactions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.domain.errors import DatabaseUnavailable, SchemaBehind
from app.storage.revisions import require_schema

CONNECT_TIMEOUT_SECONDS = 5
POOL_TIMEOUT_SECONDS = 10
UNAVAILABLE_CLASSES = ("08", "57P", "53")
"""SQLSTATE: connection trouble, shutdown or crash, out of resources (a full disk is 53100)."""
CANCELED = "57014"
"""SQLSTATE of a statement that took longer than it may."""
READ_ONLY = "25006"
"""A standby, or a primary that was demoted: it will be writable again."""
FORBIDDEN = ("42501", "3F000")
"""The role lacks a right, or a schema to work in, until somebody grants it."""
UNDEFINED = ("42P01", "42703")
"""SQLSTATE of a table or column that does not exist: not yet, when the schema is behind."""

# A stopped worker's open transaction would block its successor for hours by default; SET LOCAL
# also survives a pooler between us and Postgres (design 2.2).
_BOUNDS = (
    "SELECT set_config('idle_in_transaction_session_timeout', '10s', true),"
    " set_config('lock_timeout', '10s', true),"
    " set_config('statement_timeout', '30s', true)"
)
_BOUNDS_RELAXED = f"{_BOUNDS}, set_config('synchronous_commit', 'off', true)"

# It reads much and compiles nothing that would be worth it.
_BOUNDS_SNAPSHOT = text(
    "SELECT set_config('idle_in_transaction_session_timeout', '30s', true),"
    " set_config('lock_timeout', '10s', true), set_config('jit', 'off', true),"
    " set_config('work_mem', '32MB', true), set_config('statement_timeout', :statement, true)"
)


def sqlalchemy_url(url: str) -> URL:
    """Return a URL as platforms write it (``postgres://…``) with the driver that we use.

    A folder of sockets may stand where the host does, as in libpq: ``postgres://%2Fvar%2Frun/d``.
    """
    made = make_url(url).set(drivername="postgresql+psycopg")
    return made.set(host=unquote(made.host)) if made.host else made


def make_engine(url: str, *, application_name: str, pool_size: int = 5) -> Engine:
    """Return an engine; nothing is opened before its first use.

    Args:
        url: ``postgres://…`` or ``postgresql://…``.
        application_name: what ``pg_stat_activity`` shows.
        pool_size: most connections that this process will hold.
    """
    return create_engine(
        sqlalchemy_url(url),
        pool_size=pool_size,
        max_overflow=0,
        # Of errors: they are documents and secrets, and errors are logged.
        hide_parameters=True,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_use_lifo=True,
        connect_args={
            "application_name": application_name,
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "keepalives": 1,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            # No server-side prepared statements: a pooler in transaction mode breaks them.
            "prepare_threshold": None,
        },
    )


@contextmanager
def transaction(engine: Engine, *, durable: bool = True) -> Iterator[Connection]:
    """Run one READ COMMITTED transaction with bounded waits; commits when the block ends.

    Args:
        engine: where to.
        durable: False lets the commit return before it is on disk
            (``synchronous_commit=off``): for what may be repeated, never for an ingest.

    Raises:
        DatabaseUnavailable: no connection, or it broke; nothing is confirmed.
        SchemaBehind: likewise, for want of a migration.
    """
    try:
        with engine.begin() as connection:
            with driver_of(connection) as driver:
                driver.execute(_BOUNDS if durable else _BOUNDS_RELAXED)
            with _left_if_read_only(connection):
                yield connection
    except PoolTimeout as error:
        reason = "all connections are busy"
        raise DatabaseUnavailable(reason) from error
    except DBAPIError as error:
        if waiting_helps := _waiting_helps(engine, error):
            raise waiting_helps from error
        raise


@contextmanager
def _left_if_read_only(connection: Connection) -> Iterator[None]:
    """Close a connection to a primary that was demoted: its name may lead to another by now."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) == READ_ONLY:
            connection.invalidate(error)
        raise


@contextmanager
def snapshot(engine: Engine, *, statement_seconds: float) -> Iterator[Connection]:
    """Run one read-only REPEATABLE READ transaction: everything is read as of one moment.

    Args:
        engine: where to.
        statement_seconds: longest statement; a longer one fails with SQLSTATE ``CANCELED``.

    Raises:
        DatabaseUnavailable: no connection, or it broke.
        SchemaBehind: something is not there, for want of a migration.
    """
    try:
        with engine.connect() as plain:
            connection = plain.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            with connection.begin():
                connection.execute(
                    _BOUNDS_SNAPSHOT, {"statement": f"{int(statement_seconds * 1000)}ms"}
                )
                yield connection
    except PoolTimeout as error:
        reason = "all connections are busy"
        raise DatabaseUnavailable(reason) from error
    except DBAPIError as error:
        if waiting_helps := _waiting_helps(engine, error):
            raise waiting_helps from error
        raise


def fetch(
    connection: Connection, statement: str, values: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """Run a statement past SQLAlchemy, and return its rows as plain tuples.

    For the pages of deliveries, of which each row took three times as long the other way.

    Args:
        connection: within a transaction.
        statement: with ``%(name)s`` where a value belongs.
        values: by name.

    Raises:
        DBAPIError: as SQLAlchemy would have raised it.
    """
    with driver_of(connection) as driver, driver.cursor(binary=True) as cursor:
        return cursor.execute(statement, values).fetchall()


@contextmanager
def driver_of(connection: Connection) -> Iterator[psycopg.Connection[Any]]:
    """Lend psycopg's own connection; its errors come out as those of SQLAlchemy."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101  (no other driver is installed)
    try:
        yield driver
    except psycopg.Error as error:
        raise DBAPIError.instance(
            None, None, error, psycopg.Error, connection_invalidated=driver.broken
        ) from error


def _waiting_helps(engine: Engine, error: DBAPIError) -> DatabaseUnavailable | None:
    """Return what to say of an error that is not the statement's fault."""
    if is_unavailable(error):
        return DatabaseUnavailable(_first_line(error))
    if sqlstate(error) in UNDEFINED:
        try:
            with engine.connect() as connection:
                require_schema(connection)
        except SchemaBehind as behind:
            return behind
        except SQLAlchemyError:
            return None
    return None


def is_unavailable(error: DBAPIError) -> bool:
    """Tell whether waiting for Postgres may help."""
    if error.connection_invalidated:
        return True
    state = sqlstate(error)
    if state is None:
        return isinstance(error, OperationalError | InterfaceError)
    return state.startswith(UNAVAILABLE_CLASSES) or state in {READ_ONLY, *FORBIDDEN}


def sqlstate(error: DBAPIError) -> str | None:
    """Return the five characters that Postgres gave, or None when it said nothing."""
    original = error.orig
    return original.sqlstate if isinstance(original, psycopg.Error) else None


def _first_line(error: DBAPIError) -> str:
    lines = str(error.orig).strip().splitlines()
    return lines[0] if lines else type(error.orig).__name__
