"""``python -m worker.child KIND``: one worker process under the supervisor."""

from __future__ import annotations

import os
import signal
import sys
import threading

import dramatiq
import structlog

from app.domain.errors import DocyardError
from app.logs import configure_logging
from app.settings import load_settings
from app.supervision.children import SILENT_SECONDS
from app.supervision.pulse import Pulse, end_without_parent
from app.supervision.signals import StopSignals
from worker.main import KINDS, make_broker
from worker.schema import wait_for_schema

LOG = structlog.get_logger(__name__)
DRAIN_MS = 20_000
THREAD_WAIT_MS = 200
SWITCH_SECONDS = 0.0005
"""Between threads. A single document needs a dozen turns beside a thread that is busy with a bulk
load; at Python's 5 ms they add up to more than all its work."""
DOORBELL_THREADS = 2


def main() -> int:
    """Work until SIGTERM, or until the supervisor is gone; return the exit code."""
    kind = next((one for one in KINDS if one in sys.argv[1:]), None)
    if kind is None:
        sys.stderr.write(f"usage: python -m worker.child {'|'.join(KINDS)}\n")
        return 2
    sys.setswitchinterval(SWITCH_SECONDS)
    stop = threading.Event()

    def on_signal(heard: signal.Signals) -> None:
        # Whatever comes later is not heard: draining has its own bound.
        LOG.info("child.stopping", kind=kind, signal=heard.name)
        stop.set()

    signals = StopSignals()
    signals.listen()
    signals.tell_on_thread(on_signal)
    end_without_parent(stop.set)
    # Collectors have a watch of their own, which uses the same thread in C.
    Pulse(hung_seconds=None if kind == "collectors" else SILENT_SECONDS).beat_on_thread(stop)
    try:
        settings = load_settings()
        configure_logging(settings)
        if not wait_for_schema(settings.database_url, stop):
            return 0
        broker = make_broker(settings, [kind])
    except DocyardError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    threads = settings.worker_threads if kind == "ingest" else DOORBELL_THREADS
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=THREAD_WAIT_MS)
    worker.start()
    LOG.info("child.ready", kind=kind, pid=os.getpid())
    stop.wait()
    worker.stop(timeout=DRAIN_MS)
    broker.close()
    LOG.info("child.stopped", kind=kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
