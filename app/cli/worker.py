"""``worker``: ingest and delivery processes under one supervisor."""

from __future__ import annotations

from typing import Annotated

import typer

from app.domain.errors import SettingsInvalid
from app.settings import load_settings

ONLY = ("ingest", "delivery")


def worker(
    only: Annotated[
        str | None, typer.Option(help="Run one kind of process only: ingest or delivery.")
    ] = None,
    worker_min: Annotated[
        int | None, typer.Option(min=1, max=64, help="Ingest processes that are always there.")
    ] = None,
    worker_max: Annotated[
        int | None, typer.Option(min=1, max=64, help="Most ingest processes.")
    ] = None,
    ingest_processes: Annotated[
        int | None, typer.Option(min=0, max=64, help="A fixed number, whatever the queue.")
    ] = None,
    delivery_processes: Annotated[int | None, typer.Option(min=0, max=64)] = None,
) -> None:
    """Classify, store and deliver what is queued."""
    from app.logs import configure_logging  # noqa: PLC0415  (only where it is run)
    from worker.supervisor import supervisor  # noqa: PLC0415  (likewise)

    if only is not None and only not in ONLY:
        message = f"--only takes {' or '.join(ONLY)}"
        raise SettingsInvalid(message)
    settings = load_settings(
        worker_min=worker_min,
        worker_max=worker_max,
        ingest_processes=ingest_processes,
        delivery_processes=delivery_processes,
    )
    if settings.router is not None:
        from app.extensions import load_router  # noqa: PLC0415  (only where there is one)

        # The children would die of a wrong one and be started again, for ever.
        load_router(settings)
    configure_logging(settings)
    raise typer.Exit(supervisor(settings, only).run())
