"""Tables with much in them: documents, backlogs of deliveries, and what else they leave behind."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, text

from app.domain.destinations import DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT
from app.storage import destinations, leases
from app.storage.engine import transaction
from app.storage.leases import Lease
from bench import rows

CHUNK = 500
DESTINATIONS = 100
BACKLOG = 1_000_000
"""Deliveries that wait for a destination, at most."""
TENANT = DEFAULT_TENANT


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Large tables, and what of them the statements ask for.

    Attributes:
        stored: ids and order numbers of a chunk of stored documents, with open deliveries.
        busy: a destination that all those deliveries wait for, with a lease.
        parked: a destination whose deliveries are all to be tried again tomorrow.
        quiet: a destination whose deliveries have all been delivered.
    """

    stored: Sequence[tuple[uuid.UUID, int]]
    busy: Lease
    parked: uuid.UUID
    quiet: uuid.UUID


def make_world(engine: Engine, database_url: str, count: int, *, tidy: bool = True) -> World:
    """Fill empty tables: so many documents, delivered to three destinations among 100.

    Two large backlogs make a planner expect a match everywhere; that is when it errs.

    Args:
        engine: on the database.
        database_url: of it.
        count: documents.
        tidy: vacuum and analyse. Without, as in a young installation, the planner knows sizes only.
    """
    rows.make_documents(database_url, count)
    ids = [_destination(engine, f"bench-{number}") for number in range(DESTINATIONS)]
    busy, parked, quiet = ids[10], ids[50], ids[90]
    backlog = min(count, BACKLOG)
    rows.make_deliveries(database_url, busy, backlog)
    rows.make_deliveries(database_url, parked, backlog, attempts=1, parked=True)
    rows.make_deliveries(database_url, quiet, backlog // 10, state="delivered", attempts=1)
    rows.make_traces(database_url, backlog)
    if tidy:
        rows.tidy(database_url)
    with transaction(engine) as connection:
        lease = leases.acquire(connection, TENANT, busy, "bench", 3600)
        assert lease is not None  # noqa: S101  (nobody else wants it)
        # From all over the backlog, as updates are.
        stored = connection.execute(
            text(
                "SELECT document_id AS id, seq FROM deliveries WHERE destination_id = :busy"
                " ORDER BY md5(document_id::text) LIMIT :chunk"
            ),
            {"busy": busy, "chunk": CHUNK},
        )
        return World(
            stored=[(row.id, row.seq) for row in stored], busy=lease, parked=parked, quiet=quiet
        )


def _destination(engine: Engine, key: str) -> uuid.UUID:
    given = DestinationInput(key=key, url=f"http://example.com/{key}")
    made = make_destination(TENANT, given, now=datetime.now(UTC))
    with transaction(engine) as connection:
        destinations.create(connection, made)
    return made.id
