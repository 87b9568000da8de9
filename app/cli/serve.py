"""``serve``: the web process."""

from __future__ import annotations

import errno
import socket
from typing import Annotated

import typer

from app.domain.errors import SettingsInvalid
from app.extensions import load_event_model
from app.settings import Settings, load_settings

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
    from app.logs import configure_logging  # noqa: PLC0415  (slow, only for this command)

    configure_logging(settings)
    if settings.web_concurrency == 1:
        from app.cli.web_server import serve_on  # noqa: PLC0415  (likewise)

        code = serve_on(settings, listening)
    else:
        from app.cli.web_supervisor import supervise  # noqa: PLC0415  (likewise)

        code = supervise(settings, listening)
    if code:
        raise typer.Exit(code)
