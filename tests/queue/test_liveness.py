"""A broken worker process ends, so that its supervisor starts a new one; one SIGTERM counts."""

from __future__ import annotations

import signal
import threading
from types import SimpleNamespace

from app.queue.liveness import EXIT_SILENT, TerminateOnce, Vital, Watchdog


def thread(*, alive=True):
    return SimpleNamespace(is_alive=lambda: alive)


def parts(*, seen, dead=(), dead_workers=0):
    consumers = {queue: thread(alive=queue not in dead) for queue in seen}
    workers = [thread(), *(thread(alive=False) for _ in range(dead_workers))]
    broker = SimpleNamespace(seen=seen, parts={})
    return broker, SimpleNamespace(consumers=consumers, workers=workers)


def test_dead_and_silent_consumers_and_dead_workers_are_found():
    watchdog = Watchdog(silent_seconds=60, clock=lambda: 100.0)
    seen = {"fine": 90.0, "dead": 90.0, "silent": 39.0}
    assert watchdog.broken(*parts(seen=seen, dead=["dead"])) == ["dead", "silent"]
    assert watchdog.broken(*parts(seen={"fine": 90.0}, dead_workers=1)) == ["worker"]
    assert watchdog.broken(*parts(seen={"fine": 90.0})) == []


def test_a_pump_that_is_silent_is_found_like_a_consumer():
    watchdog = Watchdog(silent_seconds=60, clock=lambda: 100.0)
    broker, worker = parts(seen={"fine": 90.0})
    broker.parts["pump"] = Vital(lambda: 59.0)
    assert watchdog.broken(broker, worker) == []
    broker.parts["pump"] = Vital(lambda: 61.0)
    assert watchdog.broken(broker, worker) == ["pump"]


def test_a_part_may_be_silent_for_as_long_as_it_says():
    watchdog = Watchdog(silent_seconds=60, clock=lambda: 100.0)
    broker, worker = parts(seen={"fine": 90.0})
    broker.parts |= {"slow": Vital(lambda: 100.0, 101.0), "quick": Vital(lambda: 3.0, 2.0)}
    assert watchdog.broken(broker, worker) == ["quick"]


def watch(clock, *, seen, seconds=0.5):
    """Let a watchdog look until it ends the process; return the exit code, None for no end."""
    ended = threading.Event()
    codes = []

    def end(code):
        codes.append(code)
        ended.set()

    watchdog = Watchdog(silent_seconds=60, look_every_seconds=0.02, clock=clock, end=end)
    broker, worker = parts(seen=seen)
    watchdog.after_worker_boot(broker, worker)
    ended.wait(seconds)
    watchdog.before_worker_shutdown(broker, worker)
    return codes[0] if codes else None


def test_a_silent_consumer_ends_the_process():
    assert watch(lambda: 100.0, seen={"silent": 0.0}, seconds=30) == EXIT_SILENT
    assert watch(lambda: 100.0, seen={"fine": 99.0}) is None


def test_a_process_that_stood_still_as_a_whole_is_not_taken_for_a_silent_one():
    # Every look finds a minute gone: the watchdog itself was stopped as long as the consumers.
    times = iter(range(0, 1_000_000, 90))
    assert watch(lambda: next(times), seen={"stopped": 0.0}) is None


def test_sigterm_counts_once():
    counted = []
    before = signal.signal(signal.SIGTERM, lambda *_: counted.append(1))
    try:
        TerminateOnce().after_process_boot(None)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert counted == [1]
