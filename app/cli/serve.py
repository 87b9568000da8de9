"""``serve``: the web process."""

from __future__ import annotations

import errno
import os
import socket
from functools import partial
from typing import Annotated

import typer

from app.domain.errors import SettingsInvalid
from app.extensions import load_event_model
from app.settings import Settings, environment_with, load_settings

SHUTDOWN_SECONDS = 20
BACKLOG = 2048


def serve(
    host: Annotated[str | None, typer.Option(help="Where to listen (HOST).")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="PORT; 0: any.")] = None,
    web_concurrency: Annotated[int | None, typer.Option(min=1, max=64)] = None,
) -> None:
    """Serve the HTTP API until SIGTERM."""
    settings = load_settings(host=host, port=port, web_concurrency=web_concurrency)
    settings.require_guarded_bind()
    # Several web processes would die of a wrong one and be started again, for ever.
    load_event_model(settings)
    listening = bind(settings)
    run(settings, listening)


def bind(settings: Settings) -> socket.socket:
    """Open the socket to listen on.

    Raises:
        SettingsInvalid: the address cannot be had; says what to do.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            sentence = f"{place} is in use. Stop what listens there, or choose another PORT."
        else:
            sentence = f"Cannot listen on {place}: {error.strerror or error}."
        raise SettingsInvalid(sentence) from None


def run(settings: Settings, listening: socket.socket) -> None:
    """Serve on an open socket, with as many processes as the settings say."""
    import uvicorn  # noqa: PLC0415  (slow, only for this command)
    from uvicorn.supervisors import Multiprocess  # noqa: PLC0415  (likewise)

    from app.api.connections import (  # noqa: PLC0415  (likewise)
        ConnectionLimits,
        GuardedProtocol,
        Patrol,
        within_files,
    )
    from app.logs import configure_logging  # noqa: PLC0415  (likewise)

    configure_logging(settings)
    limits = within_files(ConnectionLimits.of(settings))
    # Processes of their own read the settings from the environment.
    os.environ.update(environment_with(settings))
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        loop="uvloop",
        http=partial(GuardedProtocol, patrol=Patrol(limits)),  # type: ignore[arg-type]  # makes one
        ws="none",
        workers=settings.web_concurrency,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)
    if settings.web_concurrency == 1:
        server.run(sockets=[listening])
        if not server.started:
            raise typer.Exit(3)
    else:
        Multiprocess(config, sockets=[listening]).run()
