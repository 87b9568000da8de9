"""Bring a database to the newest schema, with Alembic."""

from __future__ import annotations

import time
from collections.abc import Mapping

import structlog
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from app.domain.errors import DatabaseUnavailable
from app.storage.engine import is_unavailable, sqlalchemy_url, sqlstate
from app.storage.revisions import MIGRATIONS, current_revision, needed_revision
from app.storage.tables import (  # noqa: F401  (they fill the metadata)
    attempts,
    counts,
    deliveries,
    destinations,
    documents,
    intake,
)

LOG = structlog.get_logger(__name__)
ONE_AT_A_TIME = 0x446F6379  # "Docy": key of the advisory lock below
LOCK_SECONDS = 3.0
"""Longest wait for a table: whoever comes behind a statement that waits for one, waits as well, and
workers, which go on meanwhile, wait for ten seconds at most."""
FROZEN_SECONDS = 10.0
"""Longest silence of a process that was stopped in the middle; its tables are others' again."""
PAUSE_SECONDS = 5.0
"""Between tries, in which others do what they could not."""
PATIENCE_SECONDS = 900.0
"""With a table that somebody does not let go, say a dump."""
IN_THE_WAY = ("55P03", "40P01")
"""SQLSTATE of a lock that was not had in time, and of a deadlock."""

LEFT_BEHIND: frozenset[str] = frozenset()
"""Tables, and columns as ``table.column``, that only the version before still uses; the next may
drop them."""


def migrate(url: str) -> str:
    """Upgrade to the newest revision; safe to run from several places at once, and beside work.

    A database that is ahead of this code is left as it is: a platform that rolls back runs this in
    the older release, whose Alembic does not know the newer revisions and would fail.

    Returns:
        The revision of the database behind it.

    Raises:
        DatabaseUnavailable: it could not be reached, its role lacks a right, or somebody did not
            let a table go.
    """
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with engine.begin() as connection:
                return _upgrade(connection)
        except DBAPIError as error:
            reason = str(error.orig).splitlines()[0]
            in_the_way = sqlstate(error) in IN_THE_WAY
            if is_unavailable(error) or (in_the_way and time.monotonic() > give_up_at):
                raise DatabaseUnavailable(reason) from error
            if not in_the_way:
                raise
            LOG.warning("migration.waits", reason=reason)
        time.sleep(PAUSE_SECONDS)


def _upgrade(connection: Connection) -> str:
    # Bound to the transaction, so that it also holds through a pooler.
    connection.execute(
        text(
            "SELECT set_config('idle_in_transaction_session_timeout', :frozen, true),"
            " pg_advisory_xact_lock(:key)"
        ),
        {"frozen": f"{round(FROZEN_SECONDS * 1000)}ms", "key": ONE_AT_A_TIME},
    )
    found, needed = current_revision(connection), needed_revision()
    if found is not None and found > needed:
        return found
    connection.execute(
        text("SELECT set_config('lock_timeout', :wait, true)"),
        {"wait": f"{round(LOCK_SECONDS * 1000)}ms"},
    )
    command.upgrade(_config(connection), "head")
    return needed


def differences(engine: Engine) -> list[object]:
    """Return what the tables in the code say and the migrated database does not."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_server_default": True, "include_name": _is_ours}
        )
        return list(compare_metadata(context, SQLModel.metadata))


def _is_ours(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
    """Tell whether the code should know a name; partitions come and go by themselves."""
    place = f"{parents['table_name']}.{name}" if kind == "column" else name or ""
    return place not in LEFT_BEHIND and not (kind == "table" and place.startswith("attempts_"))


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
