"""Several web processes on one socket: restarted, replaced when silent, stopped in good time."""

from __future__ import annotations

import os
import socket
import sys
import time

import structlog

from app.settings import Settings, environment_with
from app.supervision.children import Child, Nursery
from app.supervision.signals import StopSignals

LOG = structlog.get_logger(__name__)
LOOK_SECONDS = 0.2
SILENT_SECONDS = 30.0
"""Of an event loop; its clients have given up long before."""


def supervise(settings: Settings, listening: socket.socket) -> int:
    """Keep as many processes as the settings say until SIGTERM or SIGINT; return the exit code.

    The socket is ours too: while no process runs, connections wait for the next.
    """
    signals = StopSignals()
    signals.listen()
    nursery = Nursery(
        {**os.environ, **environment_with(settings)},
        pass_fds=(listening.fileno(),),
        silent_seconds=SILENT_SECONDS,
    )
    command = [sys.executable, "-m", "app.cli.web_child", str(listening.fileno())]
    children = [
        Child(name=f"web-{number}", kind="web", command=command)
        for number in range(1, settings.web_concurrency + 1)
    ]
    heard = None
    while heard is None and nursery.refused is None:
        now = time.monotonic()
        for child in children:
            nursery.look_after(child, now)
        heard = signals.wait(LOOK_SECONDS)
    if heard is not None:
        LOG.info("web.stopping", signal=heard.name)
    # Nobody is to connect any more and wait for an answer that never comes.
    listening.close()
    code = nursery.stop(children)
    return nursery.refused or code
