"""What has become of a batch, from what Redis and Postgres know of it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import redis.asyncio
from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from app.domain.errors import BatchNotFound
from app.queue import batches as queued_batches
from app.storage import batches
from app.storage.engine import transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The counts of a batch; see ``BatchOutput`` for the sums that hold."""

    id: uuid.UUID
    intake: str
    accepted: int
    queued: int
    stored: int
    stale: int
    rejected: int
    planned: int
    open: int
    delivered: int
    failed: int
    superseded: int
    cancelled: int


async def get_batch(
    engine: Engine,
    client: redis.asyncio.Redis,
    namespace: str,
    tenant_id: int,
    batch_id: uuid.UUID,
) -> Batch:
    """Return the counts of a batch.

    Raises:
        BatchNotFound: neither Redis nor Postgres has heard of it.
        Unavailable: one of them cannot be reached.
    """
    # Redis first: what is applied meanwhile is then counted twice at worst, never missing.
    taken = await queued_batches.read(client, namespace, batch_id)
    counts = await run_in_threadpool(_counts, engine, tenant_id, batch_id)
    if taken is None and not counts:
        raise BatchNotFound(batch_id)
    known = {
        name: counts.get(name, 0)
        for name in (
            *(batches.STORED, batches.STALE, batches.REJECTED, batches.PLANNED),
            *("delivered", "failed", "superseded", "cancelled"),
        )
    }
    applied = known["stored"] + known["stale"] + known["rejected"]
    accepted = max(taken.accepted if taken else 0, applied)
    ended = known["delivered"] + known["failed"] + known["superseded"] + known["cancelled"]
    return Batch(
        id=batch_id,
        intake=taken.state if taken else queued_batches.COMPLETE,
        accepted=accepted,
        queued=accepted - applied,
        open=max(0, known["planned"] - ended),
        **known,
    )


def _counts(engine: Engine, tenant_id: int, batch_id: uuid.UUID) -> dict[str, int]:
    with transaction(engine) as connection:
        return batches.counts(connection, tenant_id, batch_id)
