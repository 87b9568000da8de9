"""One web process: uvicorn with our bounds on connections, and signs of life from its loop."""

from __future__ import annotations

import socket
from functools import partial

import uvicorn

from app.api.connections import ConnectionLimits, GuardedProtocol, Patrol, within_files
from app.main import create_app
from app.settings import Settings
from app.supervision.children import EXIT_REFUSED
from app.supervision.pulse import Pulse, end_without_parent

SHUTDOWN_SECONDS = 20
TICKS_PER_BEAT = 10
"""uvicorn's loop comes round ten times a second."""


class BeatingServer(uvicorn.Server):
    """A server whose event loop shows that it turns."""

    def __init__(self, config: uvicorn.Config, pulse: Pulse) -> None:
        """Keep the parts."""
        super().__init__(config)
        self._pulse = pulse

    async def on_tick(self, counter: int) -> bool:
        """Beat once a second; return whether to end."""
        if counter % TICKS_PER_BEAT == 0:
            self._pulse.beat()
        ends = await super().on_tick(counter)
        if ends:
            # From here on the bound is that of the shutdown.
            self._pulse.end()
        return ends


def serve_on(settings: Settings, listening: socket.socket) -> int:
    """Serve on an open socket until SIGTERM; return the exit code."""
    limits = within_files(ConnectionLimits.of(settings))
    config = uvicorn.Config(
        create_app(settings),
        loop="uvloop",
        http=partial(GuardedProtocol, patrol=Patrol(limits)),  # type: ignore[arg-type]  # makes one
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = BeatingServer(config, Pulse())

    def stop() -> None:
        server.should_exit = True

    end_without_parent(stop)
    server.run(sockets=[listening])
    return 0 if server.started else EXIT_REFUSED
