"""The ledger: what clients were told, what is stored, what was planned, what receivers have."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
import redis

from app.queue.names import DELIVER, LANES, Keys
from tests.chaos.ledger import Ledger, fault_of_stored
from tests.chaos.plan import RECEIVERS
from tests.chaos.receivers import token_in
from tests.chaos.services import CHILDREN, marked
from tests.chaos.world import MARK, World

NAMESPACE = "docyard"
QUIET_SECONDS = 90.0
POLL_SECONDS = 0.25
SHOWN = 5
ENDED = ("delivered", "failed", "superseded", "cancelled")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ledger says.

    Attributes:
        faults: what does not add up; empty where all does.
        facts: what was counted.
    """

    faults: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)


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
    with world.sql() as connection:
        states = dict(
            connection.execute("SELECT state, count(*) FROM deliveries GROUP BY state").fetchall()
        )
        left += [
            f"{count} deliveries are {state}"
            for state, count in states.items()
            if state not in ENDED
        ]
        unplanned = connection.execute("SELECT count(*) FROM unplanned_documents").fetchone()
        left += [f"{unplanned[0]} documents are not routed"] if unplanned[0] else []
        stored = {str(one) for (one,) in connection.execute("SELECT id FROM documents").fetchall()}
    if missing := ledger.accepted_ids() - stored:
        left.append(f"{len(missing)} accepted ids are not stored: {_some(missing)}")
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


def examine(world: World, ledger: Ledger) -> Verdict:
    """Compare everything, once all is quiet."""
    verdict = Verdict()
    verdict.faults.extend(ledger.unexpected[:SHOWN])
    with world.sql() as connection:
        documents = {
            str(row[0]): row[1:]
            for row in connection.execute(
                "SELECT id, version, seq, content, (attributes->>'token')::bigint FROM documents"
            )
        }
        _examine_documents(verdict, ledger, documents)
        _examine_rejected(verdict, connection)
        _examine_sums(verdict, world, connection)
        _examine_deliveries(verdict, world, connection, documents)
    return verdict


def _examine_documents(
    verdict: Verdict, ledger: Ledger, documents: Mapping[str, tuple[int, int, str, int]]
) -> None:
    for document_id, versions in ledger.all().items():
        row = documents.get(document_id)
        stored = None
        if row is not None:
            version, _, content, attribute = row
            stored = (token_in(content), version)
            if attribute != stored[0]:
                verdict.faults.append(
                    f"{document_id} has content {stored[0]} and attributes {attribute}"
                )
        if fault := fault_of_stored(versions, stored):
            verdict.faults.append(f"{document_id}: {fault}")
    if strange := documents.keys() - ledger.all().keys():
        verdict.faults.append(f"stored, and never sent: {_some(strange)}")
    verdict.facts["stored"] = len(documents)


def _examine_rejected(verdict: Verdict, connection: psycopg.Connection) -> None:
    """Nothing that was sent is at fault, so nothing may have been set aside."""
    rejected = connection.execute("SELECT document_id, reason FROM rejected_documents").fetchall()
    verdict.faults.extend(f"{one} was rejected: {reason}" for one, reason in rejected[:SHOWN])
    letters = connection.execute("SELECT queue, reason FROM dead_letters").fetchall()
    verdict.faults.extend(
        f"a chunk of {queue} was given up: {reason}" for queue, reason in letters if queue in LANES
    )
    verdict.facts["doorbells given up"] = sum(queue == DELIVER for queue, _ in letters)


def _examine_sums(verdict: Verdict, world: World, connection: psycopg.Connection) -> None:
    """accepted = stored + stale + rejected, of all that was ever appended."""
    with world.client() as client:
        appended = sum(map(int, client.hvals(Keys(NAMESPACE).accepted)))
    stored, stale, rejected, open_ = connection.execute(
        "SELECT COALESCE(sum(stored), 0), COALESCE(sum(stale), 0), COALESCE(sum(rejected), 0),"
        " count(*) FILTER (WHERE applied_at IS NULL) FROM receipts"
    ).fetchone()
    verdict.facts.update(appended=appended, versions=int(stored), stale=int(stale))
    if appended != stored + stale + rejected or open_:
        verdict.faults.append(
            f"{appended} were appended, {stored} stored, {stale} stale, {rejected} rejected;"
            f" {open_} receipts are open"
        )


def _examine_deliveries(
    verdict: Verdict,
    world: World,
    connection: psycopg.Connection,
    documents: Mapping[str, tuple[int, int, str, int]],
) -> None:
    names = {one: name for name, one in world.destinations.items()}
    rows = connection.execute(
        "SELECT document_id, seq, destination_id, state FROM deliveries"
    ).fetchall()
    states: Counter[str] = Counter()
    planned = set()
    faults: dict[str, list[str]] = {}
    for document_id, seq, destination_id, state in rows:
        name = names[destination_id]
        states[state] += 1
        planned.add((str(document_id), seq, name))
        if state not in ENDED:
            faults.setdefault(f"open deliveries to {name}", []).append(f"{document_id} {seq}")
        arrived = world.receivers.received[name].tokens.get(f"msg_{document_id.hex}_{seq}")
        if state == "delivered" and not arrived:
            faults.setdefault(f"recorded as delivered, not at {name}", []).append(str(document_id))
    for document_id, (_, seq, content, _) in documents.items():
        webhook_id = f"msg_{document_id.replace('-', '')}_{seq}"
        for name in RECEIVERS:
            if (document_id, seq, name) not in planned:
                faults.setdefault(f"not planned for {name}", []).append(document_id)
            elif world.receivers.received[name].tokens.get(webhook_id) != {token_in(content)}:
                faults.setdefault(f"last version not at {name}", []).append(document_id)
    for name, received in world.receivers.received.items():
        if mixed := [one for one, tokens in received.tokens.items() if len(tokens) > 1]:
            faults[f"one webhook-id with several contents at {name}"] = mixed
    verdict.faults.extend(f"{what}: {len(which)}, {_some(which)}" for what, which in faults.items())
    verdict.facts["deliveries"] = dict(sorted(states.items()))
    verdict.facts["repeats at receivers"] = sum(
        one.repeats for one in world.receivers.received.values()
    )


def _some(of: object) -> str:
    ordered = sorted(of)  # type: ignore[call-overload]
    return ", ".join(map(str, ordered[:SHOWN])) + (" …" if len(ordered) > SHOWN else "")
