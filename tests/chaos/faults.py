"""How each kind of fault is done, and undone.

A fault takes as long as it lasts and returns when its part is back: for the documents of a worker
that was killed the time of its death, since others must take over what it held.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import psycopg
import redis

from tests.chaos import sabotage
from tests.chaos.plan import Fault, Kind
from tests.chaos.services import POLL_SECONDS, NotReady, Service, Worker
from tests.chaos.world import World

BACK_SECONDS = 60.0
KILLED_BOUND_SECONDS = 25.0
"""Documents of a killed worker, from its death."""
BOUND_SECONDS = 10.0
"""Everything else, from when the part is back."""
TAKEN_OVER = (Kind.KILL_CHILD, Kind.KILL_MASTER)


def bound_seconds(fault: Fault) -> float:
    """Return how long recovery may take behind a single fault."""
    return KILLED_BOUND_SECONDS if fault.kind in TAKEN_OVER else BOUND_SECONDS


def cause(world: World, fault: Fault) -> float:
    """Do it, undo it, and return since when its part is back, in monotonic seconds."""
    part = fault.target.partition(".")[0]
    if fault.target == "everything":
        with _all_locks(world):
            return DEEDS[fault.kind](world, fault)
    with world.locks[part]:
        return DEEDS[fault.kind](world, fault)


class _all_locks:  # noqa: N801  (a context manager, used as one)
    """Holds the locks of all services, in one order."""

    def __init__(self, world: World) -> None:
        self._locks = [world.locks[name] for name in sorted(world.services)]

    def __enter__(self) -> None:
        for lock in self._locks:
            lock.acquire()

    def __exit__(self, *_: object) -> None:
        for lock in reversed(self._locks):
            lock.release()


def _kill_service(world: World, fault: Fault) -> float:
    service = world.services[fault.target]
    service.kill()
    died_at = time.monotonic()
    time.sleep(fault.lasts_seconds)
    service.start()
    service.wait_ready()
    return died_at if fault.kind in TAKEN_OVER else time.monotonic()


def _kill_child(world: World, fault: Fault) -> float:
    name, _, kind = fault.target.partition(".")
    worker = world.workers[name]
    os.kill(_child(worker, kind), signal.SIGKILL)
    return time.monotonic()


def _child(worker: Worker, kind: str) -> int:
    """Return a child's process, waiting for one that was killed a moment ago to be replaced."""
    deadline = time.monotonic() + BACK_SECONDS
    while (pid := worker.child(kind)) is None:
        if time.monotonic() > deadline:
            raise NotReady(f"{worker.name} did not start its {kind} process again")
        time.sleep(POLL_SECONDS)
    return pid


def _kill_server(world: World, fault: Fault) -> float:
    server = world.redis if fault.target == "redis" else world.postgres
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait()
    time.sleep(fault.lasts_seconds)
    server.start()
    return time.monotonic()


def _freeze(world: World, fault: Fault) -> float:
    name, _, kind = fault.target.partition(".")
    if name in ("redis", "postgres"):
        pid = (world.redis if name == "redis" else world.postgres).pid
    elif kind:
        pid = _child(world.workers[name], kind)
    else:
        pid = world.services[name].pid
    # What was killed in the meantime need not go on.
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(fault.lasts_seconds)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    return time.monotonic()


def _terminate(world: World, fault: Fault) -> float:
    services: list[Service] = (
        list(world.services.values())
        if fault.target == "everything"
        else [world.services[fault.target]]
    )
    for service in services:
        service.terminate()
    for service in services:
        if not service.wait_gone():
            raise NotReady(f"{service.name} did not end within its time behind SIGTERM")
    time.sleep(fault.lasts_seconds)
    for service in services:
        service.start()
    for service in services:
        service.wait_ready()
    return time.monotonic()


def _reset(world: World, fault: Fault) -> float:
    world.proxies[fault.target].reset()
    return time.monotonic()


def _blackhole(world: World, fault: Fault) -> float:
    proxy = world.proxies[fault.target]
    proxy.blackhole()
    time.sleep(fault.lasts_seconds)
    proxy.heal()
    return time.monotonic()


def _redis_full(world: World, fault: Fault) -> float:
    with world.client() as client:
        _until_done(lambda: sabotage.fill(client, full=True))
        time.sleep(fault.lasts_seconds)
        _until_done(lambda: sabotage.fill(client, full=False))
    return time.monotonic()


def _postgres_refuses(world: World, fault: Fault) -> float:
    setting = (
        "default_transaction_read_only"
        if fault.kind is Kind.POSTGRES_READ_ONLY
        else sabotage.DISK_FULL
    )

    def set_to(value: str | None) -> None:
        with world.sql() as connection:
            sabotage.set_everywhere(connection, setting, value)

    _until_done(lambda: set_to("on"))
    time.sleep(fault.lasts_seconds)
    _until_done(lambda: set_to(None))
    return time.monotonic()


def _clock_jump(world: World, fault: Fault) -> float:
    world.clock.write_text(str(fault.by))
    time.sleep(fault.lasts_seconds)
    world.clock.write_text("0")
    return time.monotonic()


def _until_done(work: Callable[[], object]) -> None:
    """Repeat what may hit another fault."""
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        try:
            work()
        except (psycopg.Error, redis.RedisError):
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return


DEEDS: Mapping[Kind, Callable[[World, Fault], float]] = {
    Kind.KILL_WEB: _kill_service,
    Kind.KILL_CHILD: _kill_child,
    Kind.KILL_MASTER: _kill_service,
    Kind.KILL_REDIS: _kill_server,
    Kind.KILL_POSTGRES: _kill_server,
    Kind.FREEZE: _freeze,
    Kind.TERMINATE: _terminate,
    Kind.RESET: _reset,
    Kind.BLACKHOLE: _blackhole,
    Kind.REDIS_FULL: _redis_full,
    Kind.POSTGRES_READ_ONLY: _postgres_refuses,
    Kind.POSTGRES_FULL: _postgres_refuses,
    Kind.CLOCK_JUMP: _clock_jump,
}
