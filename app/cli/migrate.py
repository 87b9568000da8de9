"""``migrate``: bring the database to the newest schema."""

from __future__ import annotations

import typer

from app.settings import load_settings


def migrate() -> None:
    """Bring the database named by DATABASE_URL to the newest schema."""
    from app.storage.migrate import migrate as upgrade  # noqa: PLC0415  (slow, only for this)
    from app.storage.revisions import needed_revision  # noqa: PLC0415  (likewise)

    found, needed = upgrade(load_settings().database_url), needed_revision()
    ahead = "" if found == needed else f", newer than {needed} of this version; it was left so"
    typer.echo(f"The database is at revision {found}{ahead}.")
