"""What is kept of a run that failed, beside its logs: the tables, Redis, and what clients know."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import psycopg
import redis

from tests.chaos.ledger import Ledger
from tests.chaos.world import World

if TYPE_CHECKING:
    from tests.chaos.run import Result

TABLES = (
    "documents",
    "deliveries",
    "receipts",
    "rejected_documents",
    "dead_letters",
    "destination_runtime",
)


def keep(world: World, ledger: Ledger, result: Result, folder: Path) -> None:
    """Write it into the run's folder; whatever cannot be read any more is left out."""
    sent = [asdict(one) for versions in ledger.all().values() for one in versions]
    (folder / "sent.ndjson").write_bytes(b"\n".join(orjson.dumps(one) for one in sent))
    (folder / "faults.txt").write_text(
        "\n".join(f"{fault.at_seconds:6.2f} {fault}" for fault in result.done)
        + "\n\n"
        + "\n".join(result.faults)
        + "\n"
    )
    received = {
        name: {one: sorted(tokens) for one, tokens in received.tokens.items()}
        for name, received in world.receivers.received.items()
    }
    (folder / "received.json").write_bytes(orjson.dumps(received))
    with suppress(psycopg.Error), world.sql() as connection:
        for table in TABLES:
            _copy(connection, table, folder / f"{table}.csv")
    with suppress(redis.RedisError), world.client() as client:
        (folder / "redis.txt").write_text("\n".join(sorted(client.scan_iter())) + "\n")


def _copy(connection: psycopg.Connection, table: str, file: Path) -> None:
    with (
        file.open("wb") as output,
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} TO STDOUT (FORMAT csv, HEADER)") as copy,
    ):
        for piece in copy:
            output.write(piece)
