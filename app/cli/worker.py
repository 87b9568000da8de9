"""``worker``: ingest and delivery processes under one supervisor."""

from __future__ import annotations

from typing import Annotated

import typer

from app.domain.errors import SettingsInvalid
from app.settings import environment_with, load_settings

ONLY = ("ingest", "delivery")


def worker(
    only: Annotated[
        str | None, typer.Option(help="Run one kind of process only: ingest or delivery.")
    ] = None,
    ingest_processes: Annotated[int | None, typer.Option(min=0, max=64)] = None,
    delivery_processes: Annotated[int | None, typer.Option(min=0, max=64)] = None,
) -> None:
    """Classify, store and deliver what is queued."""
    from app.logs import configure_logging  # noqa: PLC0415  (only where it is run)
    from worker.supervisor import Kind, Supervisor  # noqa: PLC0415  (likewise)

    if only is not None and only not in ONLY:
        message = f"--only takes {' or '.join(ONLY)}"
        raise SettingsInvalid(message)
    settings = load_settings(
        ingest_processes=ingest_processes, delivery_processes=delivery_processes
    )
    configure_logging(settings)
    wanted: dict[Kind, int] = {
        "ingest": settings.ingest_processes if only in {None, "ingest"} else 0,
        "delivery": settings.delivery_processes if only in {None, "delivery"} else 0,
    }
    raise typer.Exit(Supervisor(wanted, environment_with(settings)).run())
