"""What was set aside: looking at it, putting it back, dropping it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import orjson
import redis.asyncio
from sqlalchemy import Connection, Engine
from starlette.concurrency import run_in_threadpool

from app.domain.documents import Lane, lane_of
from app.domain.errors import DeadLetterNotFound, NotRetryable, RejectedNotFound, Unavailable
from app.queue.messages import ChunkMessage, chunk_message
from app.queue.resubmit import resubmit_document, resubmit_message
from app.storage import dead_letters, receipts, rejected, unplanned
from app.storage.dead_letters import DeadLetter
from app.storage.engine import transaction
from app.storage.rejected import Rejected


def list_rejected(
    engine: Engine,
    tenant_id: int,
    *,
    limit: int,
    after: int | None = None,
    document_id: uuid.UUID | None = None,
) -> tuple[Sequence[Rejected], int | None]:
    """Return a page of what was set aside, and where the next one begins."""
    with transaction(engine) as connection:
        page = rejected.list_page(
            connection, tenant_id, limit=limit + 1, after=after, document_id=document_id
        )
    return page[:limit], page[limit - 1].seq if len(page) > limit else None


def read_rejected(engine: Engine, tenant_id: int, seq: int) -> Rejected:
    """Return one with its body.

    Raises:
        RejectedNotFound: there is none.
    """
    with transaction(engine) as connection:
        return _get(connection, tenant_id, seq)


def drop_rejected(engine: Engine, tenant_id: int, seq: int) -> None:
    """Let go of one for good. One that could not be routed stays stored.

    Raises:
        RejectedNotFound: there is none.
    """
    with transaction(engine) as connection:
        if not rejected.remove(connection, tenant_id, [seq]):
            raise RejectedNotFound(seq)


async def retry_rejected(
    engine: Engine, client: redis.asyncio.Redis, namespace: str, tenant_id: int, seq: int
) -> None:
    """Try one again, under the id, version and order number that it was accepted with.

    It stays where it is until it is stored, or known to be stale; should it fail again, it stays
    with the new reason. One that could not be routed is marked to be routed anew.

    Raises:
        RejectedNotFound: there is none.
        NotRetryable: its document was replaced by a newer version, or deleted.
        QueueUnavailable, QueueFull: Redis did not take it.
    """
    chunk = await run_in_threadpool(_prepare_retry, engine, tenant_id, seq)
    if chunk is not None:
        lane, message = chunk
        try:
            await resubmit_document(client, namespace, lane, message, seq)
        except Unavailable:
            await run_in_threadpool(_unmark, engine, tenant_id, seq, message.chunk_id)
            raise


def _unmark(engine: Engine, tenant_id: int, seq: int, chunk_id: uuid.UUID) -> None:
    # What is announced of the chunk stays: it may be queued all the same.
    with transaction(engine) as connection:
        rejected.unmark_retried(connection, tenant_id, seq, chunk_id)


def _prepare_retry(engine: Engine, tenant_id: int, seq: int) -> tuple[Lane, ChunkMessage] | None:
    with transaction(engine) as connection:
        found = _get(connection, tenant_id, seq, lock=True)
        if found.stage == "router":
            _route_again(connection, tenant_id, found)
            return None
        assert found.body is not None  # noqa: S101  (asked for)
        lane = _lane(found.body)
        chunk = chunk_message(lane.value, tenant_id, [found.body])
        receipts.announce_retry(
            connection, tenant_id, chunk.chunk_id, apart=found.stage == "classifier"
        )
        rejected.mark_retried(connection, tenant_id, seq, chunk.chunk_id)
    return lane, chunk


def _route_again(connection: Connection, tenant_id: int, found: Rejected) -> None:
    if found.document_id is None or not unplanned.mark_again(
        connection, tenant_id, found.document_id, found.seq
    ):
        reason = "a newer version of its document is stored, or it was deleted"
        raise NotRetryable(reason)
    rejected.remove(connection, tenant_id, [found.seq])


def _lane(body: bytes) -> Lane:
    """Return the lane of a document that may be anything but well formed."""
    try:
        priority = orjson.loads(body)["priority"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        priority = None
    return lane_of(priority if isinstance(priority, int) else None)


def _get(connection: Connection, tenant_id: int, seq: int, *, lock: bool = False) -> Rejected:
    found = rejected.get(connection, tenant_id, seq, lock=lock)
    if found is None:
        raise RejectedNotFound(seq)
    return found


# Dead letters


def list_dead_letters(
    engine: Engine, tenant_id: int, *, limit: int, after: str | None = None
) -> tuple[Sequence[DeadLetter], str | None]:
    """Return a page of dead letters, and where the next one begins."""
    with transaction(engine) as connection:
        page = dead_letters.list_page(connection, tenant_id, limit=limit + 1, after=after)
    return page[:limit], page[limit - 1].message_id if len(page) > limit else None


def read_dead_letter(engine: Engine, tenant_id: int, message_id: str) -> DeadLetter:
    """Return one with its body.

    Raises:
        DeadLetterNotFound: there is none.
    """
    with transaction(engine) as connection:
        return _get_letter(connection, tenant_id, message_id)


def drop_dead_letter(engine: Engine, tenant_id: int, message_id: str) -> None:
    """Let go of one for good, and of the documents that it carries.

    Raises:
        DeadLetterNotFound: there is none.
    """
    with transaction(engine) as connection:
        found = _get_letter(connection, tenant_id, message_id, lock=True)
        dead_letters.remove(connection, tenant_id, message_id)
        dead_letters.count_dropped(connection, tenant_id, found.documents)


async def retry_dead_letter(
    engine: Engine, client: redis.asyncio.Redis, namespace: str, tenant_id: int, message_id: str
) -> None:
    """Put one back to its queue as a new message, and then let go of it.

    In this order nothing is lost; done twice, the receipt of its chunk makes it count once. Its row
    is locked meanwhile: one that somebody drops at this moment would be queued and dropped.

    Raises:
        DeadLetterNotFound: there is none.
        NotRetryable: it is no message of a queue of ours.
        QueueUnavailable, QueueFull: Redis did not take it; it stays.
    """
    loop = asyncio.get_running_loop()

    def put_back() -> None:
        with transaction(engine) as connection:
            found = _get_letter(connection, tenant_id, message_id, lock=True)
            assert found.body is not None  # noqa: S101  (asked for)
            append = resubmit_message(client, namespace, found.body)
            asyncio.run_coroutine_threadsafe(append, loop).result()
            dead_letters.remove(connection, tenant_id, message_id)

    await run_in_threadpool(put_back)


def _get_letter(
    connection: Connection, tenant_id: int, message_id: str, *, lock: bool = False
) -> DeadLetter:
    found = dead_letters.get(connection, tenant_id, message_id, lock=lock)
    if found is None:
        raise DeadLetterNotFound(message_id)
    return found
