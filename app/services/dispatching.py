"""Sending documents to one destination from application code, and hearing what became of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Engine

from app.domain.calls import CallFailed
from app.domain.documents import DEFAULT_TENANT, DocumentInput, lane_of
from app.domain.identifiers import new_id
from app.queue.connection import connect_async
from app.queue.intake import Intake, IntakeLimits, high_water_marks
from app.queue.server import ServerWatch
from app.settings import Settings
from app.storage import document_deliveries, documents, rejected, unplanned
from app.storage.document_deliveries import DocumentDelivery
from app.storage.engine import make_engine, transaction

T = TypeVar("T")
CONNECTIONS = 2
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
OPEN = frozenset({"queued", "unplanned", "pending", "held"})
"""States that are not the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchStatus:
    """Where a document that was dispatched stands.

    Attributes:
        state: ``queued`` (not stored yet), ``unplanned`` (stored, the router failed for now),
            ``unrouted`` (stored, and its destination does not take it), ``rejected``, or the state
            of its delivery: ``pending``, ``held``, ``delivered``, ``failed``, ``superseded``,
            ``cancelled``.
        attempts: made so far.
        value: what the collector returned.
        error: of the last attempt, or why there is none.
    """

    state: str
    attempts: int = 0
    value: Any = None
    error: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in OPEN


class Dispatched:
    """A document that is on its way; awaited, it returns what its collector returned.

    Attributes:
        id: of the document.
        key: of the destination that it is addressed to.
    """

    def __init__(self, dispatcher: Dispatcher, document_id: uuid.UUID, key: str) -> None:
        self.id = document_id
        self.key = key
        self._dispatcher = dispatcher

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    async def status(self) -> DispatchStatus:
        """Look where it stands.

        Raises:
            DatabaseUnavailable: nobody can tell now.
        """
        return await self._dispatcher.status(self.id, self.key)

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109  (as asyncio's own waits)
        """Wait for the end and return the value.

        Args:
            timeout: seconds; None waits for as long as it takes, retries included.

        Raises:
            CallFailed: it ended without a value.
            DatabaseUnavailable: nobody can tell now.
            TimeoutError: it has not ended; it goes on.
        """
        pause = FIRST_PAUSE_SECONDS
        async with asyncio.timeout(timeout):
            while not (status := await self.status()).ended:
                await asyncio.sleep(pause)
                pause = min(1.5 * pause, LONGEST_PAUSE_SECONDS)
        if status.state != "delivered" or status.error is not None:
            raise CallFailed(self.key, status.error or f"it was {status.state}")
        return status.value


class Dispatcher:
    """Has the connections; lives on one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Keep the settings; nothing is opened before its first use."""
        server = ServerWatch(settings.require_durability)
        self._client = connect_async(
            settings.queue_url, verify_tls=settings.redis_tls_verify, on_connect=server.connected
        )
        self._intake = Intake(
            self._client,
            namespace=settings.redis_namespace,
            limits=IntakeLimits(high_water=high_water_marks(settings.high_water_mark)),
            server=server,
        )
        self._engine: Engine = make_engine(
            settings.database_url, application_name="docyard-dispatch", pool_size=CONNECTIONS
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._intake.close()
        await self._client.aclose()
        self._engine.dispose()

    async def dispatch(self, key: str, content: str, **fields: Any) -> Dispatched:
        """Return when the queue has acknowledged a document that is addressed to one key.

        Raises:
            QueueFull: nothing was taken.
            QueueUnavailable: it may or may not have been taken.
            ValueError: a field does not hold what it must.
        """
        document = DocumentInput(
            id=fields.pop("id", None) or new_id(),
            content=content,
            delivery="key",
            keys=[key],
            **{name: value for name, value in fields.items() if value is not None},
        )
        assert document.id is not None  # noqa: S101  (given above)
        encoded = document.model_dump_json(exclude_unset=True).encode()
        await self._intake.submit(encoded, lane_of(document.priority))
        return Dispatched(self, document.id, key)

    async def status(self, document_id: uuid.UUID, key: str) -> DispatchStatus:
        """Return where a document stands with regard to one key."""
        return await asyncio.to_thread(self._status, document_id, key)

    def _status(self, document_id: uuid.UUID, key: str) -> DispatchStatus:
        # In this order: what is planned together with a document, or with the removal of its mark,
        # is there when the one is and the other is not.
        with transaction(self._engine, durable=False) as connection:
            stored = documents.get(connection, DEFAULT_TENANT, document_id) is not None
            waiting = unplanned.of_document(connection, DEFAULT_TENANT, document_id)
            page = document_deliveries.list_page(connection, DEFAULT_TENANT, document_id, limit=50)
            found = next((one for one in page if one.destination_key == key), None)
            if found is not None:
                return _of_delivery(found)
            if waiting is not None:
                return DispatchStatus(state="unplanned", error=waiting.error)
            if stored:
                return DispatchStatus(state="unrouted", error=f"no destination {key!r} took it")
            reason = rejected.reason_of(connection, DEFAULT_TENANT, document_id)
        return DispatchStatus(state="rejected" if reason else "queued", error=reason)


def _of_delivery(found: DocumentDelivery) -> DispatchStatus:
    return DispatchStatus(
        state=found.state, attempts=found.attempts, value=found.result, error=found.last_error
    )
