"""Which schema the code needs and which the database has, without Alembic.

The web process asks at every ``/readyz``; Alembic, with what it imports, would be 7 MB of it.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text

from app.domain.errors import SchemaBehind

MIGRATIONS = Path(__file__).parent / "migrations"


def needed_revision() -> str:
    """Return the revision that this code needs: the newest, by the names of the files."""
    return max(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def current_revision(connection: Connection) -> str | None:
    """Return the revision of the database, None when it was never migrated."""
    table = connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one()
    if table is None:
        return None
    found: str | None = connection.execute(
        text("SELECT max(version_num) FROM alembic_version")
    ).scalar_one()
    return found


def require_schema(connection: Connection) -> None:
    """Return where the database has what this code needs; a newer one has.

    During a deploy the old version runs on for a while, on the new one's schema.

    Raises:
        SchemaBehind: it has not.
    """
    found, needed = current_revision(connection), needed_revision()
    if found is None or found < needed:
        raise SchemaBehind(found, needed)
