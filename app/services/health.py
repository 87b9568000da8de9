"""Whether the parts behind the web process are there, and what they promise."""

from __future__ import annotations

from dataclasses import dataclass, field

import redis.asyncio
from redis.exceptions import RedisError
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from app.domain.errors import DatabaseUnavailable
from app.queue.depth import Depth, depths
from app.queue.durability import enough
from app.queue.names import DELIVER, LANES
from app.queue.server import ServerWatch
from app.settings import Durability
from app.storage import unplanned
from app.storage.destinations import count
from app.storage.documents import count_estimate
from app.storage.engine import transaction
from app.storage.revisions import require_schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """What ``/readyz`` tells.

    Attributes:
        ready: documents can be taken in, stored and read.
        durability: what a 202 is worth on the Redis in use.
        problems: per part, what is wrong with it.
        warnings: per part, what should be mended though it works.
    """

    ready: bool
    durability: Durability
    queues: list[Depth] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)


async def check_readiness(
    engine: Engine,
    client: redis.asyncio.Redis,
    server: ServerWatch,
    *,
    namespace: str,
) -> Readiness:
    """Ask Postgres and Redis; never raises for what it finds."""
    problems: dict[str, str] = {}
    warnings: dict[str, str] = {}
    durability: Durability = "unknown"
    queues: list[Depth] = []
    try:
        facts = await server.look(client)
        durability = facts.durability
        queues = await depths(client, namespace, (*LANES, DELIVER))
    except (RedisError, OSError) as error:
        problems["redis"] = str(error)
    else:
        if not enough(durability, server.required):
            problems["redis"] = f"durability is {durability}, {server.required} is required"
        elif facts.replica:
            problems["redis"] = "it is a replica and takes nothing in"
        if facts.warning:
            warnings["redis"] = facts.warning
    if fault := await run_in_threadpool(_database_fault, engine):
        problems["postgres"] = fault
    return Readiness(
        ready=not problems,
        durability=durability,
        queues=queues,
        problems=problems,
        warnings=warnings,
    )


def _database_fault(engine: Engine) -> str | None:
    try:
        with transaction(engine) as connection:
            require_schema(connection)
    except DatabaseUnavailable as error:
        return str(error)
    return None


@dataclass(frozen=True, slots=True)
class Totals:
    """Cheap counts for the front page.

    Attributes:
        unplanned: documents that are stored and not routed yet, counted up to 10,000.
    """

    documents_estimate: int
    destinations: int
    unplanned: int


def count_totals(engine: Engine, tenant_id: int) -> Totals:
    """Return about how many documents and exactly how many destinations there are."""
    with transaction(engine) as connection:
        return Totals(
            count_estimate(connection),
            count(connection, tenant_id),
            unplanned.count(connection, tenant_id),
        )
