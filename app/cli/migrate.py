"""``migrate``: bring the database to the newest schema."""

from __future__ import annotations

import typer

from app.settings import load_settings


def migrate() -> None:
    """Bring the database named by DATABASE_URL to the newest schema."""
    from app.storage.migrate import migrate as upgrade  # noqa: PLC0415  (slow, only for this)

    typer.echo(f"The database is at revision {upgrade(load_settings().database_url)}.")
