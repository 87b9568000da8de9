"""Bring a database to the newest schema, with Alembic."""

from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlmodel import SQLModel

from app.storage import tables  # noqa: F401  (fills the metadata)
from app.storage.engine import sqlalchemy_url
from app.storage.revisions import MIGRATIONS, current_revision, needed_revision

ONE_AT_A_TIME = 0x446F6379  # "Docy": key of the advisory lock below


def migrate(url: str) -> str:
    """Upgrade to the newest revision; safe to run from several places at once.

    A database that is ahead of this code is left as it is: a platform that rolls back runs this in
    the older release, whose Alembic does not know the newer revisions and would fail.

    Returns:
        The revision of the database behind it.
    """
    needed = needed_revision()
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    with engine.begin() as connection:
        # Bound to the transaction, so that it also holds through a pooler.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ONE_AT_A_TIME})
        found = current_revision(connection)
        if found is not None and found > needed:
            return found
        command.upgrade(_config(connection), "head")
    return needed


def differences(engine: Engine) -> list[object]:
    """Return what the tables in the code say and the migrated database does not."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_server_default": True, "include_name": _is_ours}
        )
        return list(compare_metadata(context, SQLModel.metadata))


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    """Tell whether the code should know a name; partitions come and go by themselves."""
    return kind != "table" or not (name or "").startswith("attempts_")


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
