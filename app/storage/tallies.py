"""Counts of deliveries, per destination and per batch, in one place for all who change states."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection

from app.storage import batches, counters
from app.storage.batches import BatchDelta
from app.storage.counters import Delta


class Owner(NamedTuple):
    """Whom a delivery counts for."""

    destination_id: uuid.UUID
    batch_id: uuid.UUID | None


Tally = Counter[Owner]
"""How many deliveries, per owner."""


def per_destination(tally: Tally) -> Counter[uuid.UUID]:
    """Add up over the batches."""
    counts: Counter[uuid.UUID] = Counter()
    for owner, amount in tally.items():
        counts[owner.destination_id] += amount
    return counts


def counter_deltas(name: str, tally: Tally) -> list[Delta]:
    """Return what a tally adds to the counters of its destinations."""
    return [
        Delta(f"deliveries.{name}", amount, destination_id)
        for destination_id, amount in sorted(per_destination(tally).items())
    ]


def batch_deltas(name: str, tally: Tally) -> list[BatchDelta]:
    """Return what a tally adds to the counts of its batches."""
    return [
        BatchDelta(owner.batch_id, name, amount)
        for owner, amount in sorted(tally.items(), key=str)
        if owner.batch_id is not None
    ]


def add(connection: Connection, tenant_id: int, tallies: Iterable[tuple[str, Tally]]) -> None:
    """Record that so many deliveries were planned, or ended in a state."""
    kept = [(name, tally) for name, tally in tallies if tally]
    counters.add(
        connection, tenant_id, [one for name, tally in kept for one in counter_deltas(name, tally)]
    )
    batches.add(
        connection, tenant_id, [one for name, tally in kept for one in batch_deltas(name, tally)]
    )
