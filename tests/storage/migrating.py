"""Databases at older revisions."""

from __future__ import annotations

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from app.storage.engine import make_engine
from app.storage.migrate import _config
from app.storage.revisions import MIGRATIONS


def revisions() -> list[str]:
    """Return all revisions, the oldest first."""
    scripts = ScriptDirectory(str(MIGRATIONS))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def upgrade(connection: Connection, revision: str) -> None:
    """Bring an older database to a revision."""
    command.upgrade(_config(connection), revision)


def make_one_behind(url: str) -> str:
    """Bring an empty database to the revision before the newest, and return it."""
    engine = make_engine(url, application_name="test")
    before = revisions()[-2]
    with engine.begin() as connection:
        upgrade(connection, before)
    engine.dispose()
    return before
