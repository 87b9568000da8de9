"""Waits until nothing is under way any more, in Redis, in Postgres and among the processes."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psycopg
import redis

from app.queue.names import DELIVER, LANES, Keys
from tests.chaos.ledger import Ledger
from tests.chaos.services import CHILDREN, marked
from tests.chaos.world import MARK, World

NAMESPACE = "docyard"
QUIET_SECONDS = 60.0
POLL_SECONDS = 0.25
SHOWN = 5
ENDED = ("delivered", "failed", "superseded", "cancelled")


def wait_quiet(world: World, ledger: Ledger) -> list[str]:
    """Wait until nothing is under way; return what still was when patience ended."""
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        try:
            left = _under_way(world, ledger)
        except (psycopg.Error, redis.RedisError) as error:
            left = [f"a server does not answer: {error}"]
        if not left or time.monotonic() > deadline:
            return [f"after {QUIET_SECONDS:.0f} s: {one}" for one in left]
        time.sleep(POLL_SECONDS)


def _under_way(world: World, ledger: Ledger) -> list[str]:
    with world.client() as client:
        left = _in_redis(client)
        appended = sum(map(int, client.hvals(Keys(NAMESPACE).accepted)))
    with world.sql() as connection:
        states = dict(
            connection.execute("SELECT state, count(*) FROM deliveries GROUP BY state").fetchall()
        )
        left += [
            f"{count} deliveries are {state}"
            for state, count in states.items()
            if state not in ENDED
        ]
        # Copied from Redis by a tick, a few seconds late.
        (noted,) = connection.execute(
            "SELECT COALESCE(sum(amount), 0) FROM (SELECT name, amount FROM counters"
            " UNION ALL SELECT name, amount FROM counter_deltas) c"
            " WHERE name = 'documents.accepted'"
        ).fetchone()
        if noted != appended:
            left.append(f"{noted} of {appended} accepted documents are written down")
        unplanned = connection.execute("SELECT count(*) FROM unplanned_documents").fetchone()
        left += [f"{unplanned[0]} documents are not routed"] if unplanned[0] else []
        stored = {str(one) for (one,) in connection.execute("SELECT id FROM documents").fetchall()}
    if missing := ledger.accepted_ids() - stored:
        left.append(f"{len(missing)} accepted ids are not stored: {some(missing)}")
    expected = {name: len(CHILDREN) for name in world.workers}
    running = {
        name: sum("worker.child" in one.command for one in worker.tree())
        for name, worker in world.workers.items()
    }
    if running != expected:
        left.append(f"workers have {running} children, expected {expected}")
    return left + _strays(world)


def _in_redis(client: redis.Redis) -> list[str]:
    """Return what waits, is held, delayed or given up, whoever has it."""
    keys = Keys(NAMESPACE)
    left = []
    for queue in (*LANES, DELIVER):
        counts = {
            "waiting": client.llen(keys.ids(queue)),
            "bodies": client.hlen(keys.bodies(queue)),
            "delayed": client.llen(keys.ids(f"{queue}.DQ")),
            "delayed bodies": client.hlen(keys.bodies(f"{queue}.DQ")),
            "dead": client.zcard(keys.dead(queue)),
        }
        left += [f"{count} {what} in {queue}" for what, count in counts.items() if count]
    for key in client.scan_iter(f"{NAMESPACE}:__acks__.*"):
        left.append(f"{client.scard(key)} unacknowledged in {key}")
    left += [
        f"{lane} counts {count} queued documents"
        for lane, count in client.hgetall(keys.queued).items()
        if int(count)
    ]
    return left


def _strays(world: World) -> list[str]:
    """Return processes of this run that are below none of its services."""
    known = {one.pid for service in world.services.values() for one in service.tree()}
    return [
        f"process {one.pid} belongs to nobody: {one.command}"
        for one in marked(MARK, world.run_id)
        if one.pid not in known
    ]


def some(of: Iterable[object]) -> str:
    """Name the first few."""
    ordered = sorted(map(str, of))
    return ", ".join(ordered[:SHOWN]) + (" …" if len(ordered) > SHOWN else "")
