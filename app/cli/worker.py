"""``worker``: ingest, delivery and collector processes under one supervisor."""

from __future__ import annotations

from typing import Annotated

import typer

from app.domain.errors import SettingsInvalid
from app.settings import Settings, load_settings

ONLY = ("ingest", "delivery", "collectors")


def worker(
    only: Annotated[
        str | None, typer.Option(help=f"Run one kind of process only: {', '.join(ONLY)}.")
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
        message = f"--only takes {', '.join(ONLY)}"
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
    if only == "collectors" and not settings.collectors:
        message = "--only collectors needs COLLECTORS, the modules that they are in"
        raise SettingsInvalid(message)
    if settings.collectors and only in {None, "collectors"}:
        _check_collectors(settings)
    raise typer.Exit(supervisor(settings, only).run())


def _check_collectors(settings: Settings) -> None:
    """Refuse here what the children would die of, again and again.

    Raises:
        SettingsInvalid: a module is wrong, or a key is taken.
    """
    import structlog  # noqa: PLC0415  (only where there are collectors, as the others)

    from app.domain.documents import DEFAULT_TENANT  # noqa: PLC0415
    from app.domain.errors import DatabaseUnavailable  # noqa: PLC0415
    from app.extensions import load_collectors  # noqa: PLC0415
    from app.services.collectors import register_collectors  # noqa: PLC0415
    from app.storage.engine import make_engine  # noqa: PLC0415

    specs = load_collectors(settings)
    engine = make_engine(settings.database_url, application_name="docyard-worker", pool_size=1)
    try:
        register_collectors(engine, DEFAULT_TENANT, specs)
    except DatabaseUnavailable as error:
        # The child registers them when it can.
        structlog.get_logger(__name__).warning("collectors.not_registered", reason=str(error))
    finally:
        engine.dispose()
