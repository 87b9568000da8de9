"""The ledger: what clients were told, what is stored, what was planned, what receivers have."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg

from app.queue.names import DELIVER, LANES, Keys
from app.storage.counters import NO_DESTINATION
from tests.chaos.ledger import Ledger, fault_of_stored
from tests.chaos.quiet import ENDED, NAMESPACE, SHOWN, some
from tests.chaos.receivers import Received, token_in
from tests.chaos.world import World

Rows = Mapping[str, tuple[int, int, str, int]]
"""By id: version, order number, content, and the token among its attributes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ledger says.

    Attributes:
        faults: what does not add up; empty where all does.
        facts: what was counted.
    """

    faults: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)


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


def _examine_documents(verdict: Verdict, ledger: Ledger, documents: Rows) -> None:
    wrong: list[str] = []
    for document_id, versions in ledger.all().items():
        row = documents.get(document_id)
        stored = None
        if row is not None:
            version, _, content, attribute = row
            stored = (token_in(content), version)
            if attribute != stored[0]:
                wrong.append(f"{document_id}: content {stored[0]}, attributes {attribute}")
        if fault := fault_of_stored(versions, stored):
            wrong.append(f"{document_id}: {fault}")
    wrong += [f"{one}: nobody sent it" for one in documents.keys() - ledger.all().keys()]
    verdict.faults.extend(wrong[:SHOWN])
    if len(wrong) > SHOWN:
        verdict.faults.append(f"… and so on, {len(wrong)} documents in all")
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
    _compare(
        verdict,
        {
            "documents.accepted": appended,
            "documents.created": connection.execute("SELECT count(*) FROM documents").fetchone()[0],
            "documents.stored": int(stored),
            "documents.stale": int(stale),
            "documents.rejected": int(rejected),
            # Doorbells: they may be given up, and the sweeper rings again.
            "dead_letters.created": connection.execute(
                "SELECT count(*) FROM dead_letters"
            ).fetchone()[0],
        },
        _counters(connection, NO_DESTINATION),
        "documents",
    )


def _counters(connection: psycopg.Connection, destination_id: uuid.UUID) -> dict[str, int]:
    """Return the product's own sums, folded or not."""
    rows = connection.execute(
        "SELECT name, sum(amount)::bigint FROM (SELECT name, destination_id, amount FROM counters"
        " UNION ALL SELECT name, COALESCE(destination_id, %(nobody)s), amount FROM counter_deltas)"
        " c WHERE destination_id = %(id)s GROUP BY name",
        {"id": destination_id, "nobody": NO_DESTINATION},
    )
    return {name: amount for name, amount in rows.fetchall() if amount}


def _compare(
    verdict: Verdict, rows: Mapping[str, int], counted: Mapping[str, int], what: str
) -> None:
    if (there := {name: amount for name, amount in rows.items() if amount}) != counted:
        verdict.faults.append(f"{what}: rows add up to {there}, counters to {counted}")


def _examine_deliveries(
    verdict: Verdict, world: World, connection: psycopg.Connection, documents: Rows
) -> None:
    rows = connection.execute("SELECT document_id, seq, destination_id, state FROM deliveries")
    by_destination: defaultdict[uuid.UUID, dict[tuple[str, int], str]] = defaultdict(dict)
    for document_id, seq, destination_id, state in rows.fetchall():
        by_destination[destination_id][document_id.hex, seq] = state
    states: Counter[str] = Counter()
    for name, destination_id in world.destinations.items():
        planned = by_destination[destination_id]
        _examine_receiver(verdict, name, planned, world.receivers.received[name], documents)
        ended = Counter(f"deliveries.{state}" for state in planned.values() if state in ENDED)
        ended["deliveries.planned"] = len(planned)
        counted = _counters(connection, destination_id)
        _compare(verdict, ended, counted, f"deliveries to {name}")
        states.update(planned.values())
    verdict.facts["deliveries"] = dict(sorted(states.items()))
    verdict.facts["repeats at receivers"] = sum(
        one.repeats for one in world.receivers.received.values()
    )


def _examine_receiver(
    verdict: Verdict,
    name: str,
    planned: Mapping[tuple[str, int], str],
    received: Received,
    documents: Rows,
) -> None:
    """Compare the deliveries of one destination with what its receiver has confirmed."""

    def tokens(document_hex: str, seq: int) -> set[int]:
        return received.tokens.get(f"msg_{document_hex}_{seq}", set())

    newest = {
        (document_id.replace("-", ""), seq): token_in(content)
        for document_id, (_, seq, content, _) in documents.items()
    }
    for what, which in {
        f"open deliveries to {name}": [key for key, state in planned.items() if state not in ENDED],
        f"recorded as delivered, not at {name}": [
            key for key, state in planned.items() if state == "delivered" and not tokens(*key)
        ],
        f"last version not planned for {name}": newest.keys() - planned.keys(),
        f"last version not at {name}": [
            key for key, token in newest.items() if tokens(*key) != {token}
        ],
        f"one webhook-id with several contents at {name}": [
            one for one, found in received.tokens.items() if len(found) > 1
        ],
    }.items():
        if which:
            verdict.faults.append(f"{what}: {len(which)}, {some(which)}")
