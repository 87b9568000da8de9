"""Collectors that block: found by the pump's loop, which does not depend on theirs.

========================  =========================================================================
at any time               others are not timed out for it
5 s                       a warning with the place in the code, and again each time it doubles
30 s                      the delivery fails (temporarily), everything else is handed back, and the
                          process ends in good order; its supervisor starts a new one
where it is unknown which the process ends at once: the leases run out, and from the second time on
                          its collectors go one at a time, each attempt counted before it begins
60 s without Python       (a C extension that holds the interpreter lock) a thread in C ends the
                          process likewise
========================  =========================================================================
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from worker.collectors.attempts import CollectorAttempts
from worker.collectors.host import CollectorHost

LOG = structlog.get_logger(__name__)
LOOK_EVERY_SECONDS = 0.5
EXIT_STALLED = 70


def _end_in_order() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _end_at_once() -> None:
    os._exit(EXIT_STALLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """What to do about a loop that does not come round.

    Attributes:
        warn_seconds: from which on it is logged.
        most_seconds: from which on the process ends.
        hung_seconds: without any Python at all; None for no bound.
    """

    warn_seconds: float = 5.0
    most_seconds: float = 30.0
    hung_seconds: float | None = None
    end_in_order: Callable[[], None] = _end_in_order
    end_at_once: Callable[[], None] = _end_at_once


async def watch(host: CollectorHost, attempts: CollectorAttempts, options: WatchOptions) -> None:
    """Look twice a second, until cancelled."""
    warn_at = options.warn_seconds
    try:
        while True:
            if options.hung_seconds is not None:
                faulthandler.dump_traceback_later(
                    options.hung_seconds, exit=True, file=sys.__stderr__ or sys.stderr
                )
            host.beat()
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            stalled = host.stalled_seconds
            if not host.alive:
                LOG.critical("collectors.loop_gone")
                attempts.interrupt(None, "the event loop of its process is gone")
                options.end_at_once()
                return
            if stalled < options.warn_seconds:
                warn_at = options.warn_seconds
            elif stalled >= warn_at:
                warn_at *= 2
                where = host.stack()
                LOG.error("collectors.stalled", seconds=stalled, by=_name(host), stack=where)
            if stalled >= options.most_seconds:
                _give_up(host, attempts, options)
                return
    finally:
        if options.hung_seconds is not None:
            faulthandler.cancel_dump_traceback_later()


def _give_up(host: CollectorHost, attempts: CollectorAttempts, options: WatchOptions) -> None:
    culprit = host.running
    LOG.critical("collectors.ended", by=_name(host))
    sentence = f"it blocked the event loop of its process for {options.most_seconds:g} s"
    attempts.interrupt(culprit, sentence)
    if culprit is None:
        options.end_at_once()
    else:
        options.end_in_order()


def _name(host: CollectorHost) -> str:
    return str(host.running)
