"""``openapi``: the description of the HTTP API."""

from __future__ import annotations

import json

import typer


def openapi() -> None:
    """Print the OpenAPI description, as openapi.json holds it."""
    from app.main import create_app  # noqa: PLC0415  (slow, only for this)
    from app.settings import load_settings  # noqa: PLC0415  (likewise)

    typer.echo(json.dumps(create_app(load_settings()).openapi(), indent=2, ensure_ascii=False))
