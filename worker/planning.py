"""Routes documents that are stored already: for the user's router, and after failures.

The router may take its time and may raise, so no transaction is open while it works: the document
is stored with a mark first, then routed, then planned in a transaction that removes the mark.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import structlog
from redis import RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from app.domain.documents import DEFAULT_TENANT
from app.domain.errors import DatabaseUnavailable, RouterFailed
from app.domain.routers import Chosen, RoutedDocument
from app.domain.routing import Route, RoutingTable
from app.storage import deliveries, tallies, unplanned, unregistered
from app.storage.deliveries import PlannedDelivery
from app.storage.destinations import DestinationCache
from app.storage.documents import IncomingDocument
from app.storage.engine import transaction
from app.storage.unplanned import Mark, UnplannedDocument
from worker.router_host import Question

LOG = structlog.get_logger(__name__)
LOOK_EVERY_SECONDS = 1.0
MOST_AT_ONCE = 200

T = TypeVar("T")

Ring = Callable[[int, Sequence[uuid.UUID]], object]
"""Rings the destinations of a tenant."""


class Routers(Protocol):
    """What answers questions: the user's router or the table."""

    def ask(
        self, questions: Sequence[Question], table: RoutingTable
    ) -> list[Chosen | RouterFailed]:
        """Return the answer to each question, or why there is none."""

    def close(self) -> None:
        """End what is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """What routing behind the commit needs; one for all threads of an ingest process."""

    engine: Engine
    destinations: DestinationCache
    router: Routers
    ring: Ring
    seal: Callable[[str], str] = str
    """Encrypts a secret that is made here."""


def plan(parts: Planning, tenant_id: int, documents: Sequence[UnplannedDocument]) -> None:
    """Route documents and plan their deliveries; what fails is put off.

    Raises:
        DatabaseUnavailable: nothing was planned; the marks stay.
    """
    if not documents:
        return
    with transaction(parts.engine, durable=False) as connection:
        table = parts.destinations.table(connection, tenant_id)
    answers = parts.router.ask([Question(one.document, one.prediction) for one in documents], table)
    asked = dict(zip((one.mark for one in documents), answers, strict=True))
    chosen = {mark: answer for mark, answer in asked.items() if isinstance(answer, Chosen)}
    failures = {mark: answer for mark, answer in asked.items() if isinstance(answer, RouterFailed)}
    by_mark = {one.mark: one.document for one in documents}
    with transaction(parts.engine) as connection:
        try:
            with connection.begin_nested():
                planned = _settle(connection, tenant_id, chosen, by_mark, parts.seal)
        except RouterFailed as error:
            with_urls = {mark for mark, one in chosen.items() if one.urls}
            failures |= dict.fromkeys(with_urls, error)
            rest = {mark: one for mark, one in chosen.items() if mark not in with_urls}
            planned = _settle(connection, tenant_id, rest, by_mark, parts.seal)
        errors = {mark: str(failure) for mark, failure in failures.items()}
        unplanned.put_off(connection, tenant_id, errors)
    if failures:
        first = next(iter(failures.values()))
        LOG.warning("documents.unplanned", documents=len(failures), exc_info=first)
    _ring(parts, tenant_id, planned)


def _ring(parts: Planning, tenant_id: int, destination_ids: Sequence[uuid.UUID]) -> None:
    if not destination_ids:
        return
    try:
        parts.ring(tenant_id, destination_ids)
    except RedisError as error:
        LOG.warning("doorbell.failed", reason=str(error), destinations=len(destination_ids))


def _settle(
    connection: Connection,
    tenant_id: int,
    chosen: dict[Mark, Chosen],
    documents: dict[Mark, RoutedDocument],
    seal: Callable[[str], str],
) -> list[uuid.UUID]:
    claimed = unplanned.claim(connection, tenant_id, list(chosen))
    mine = {mark: one for mark, one in chosen.items() if (mark.document_id, mark.seq) in claimed}
    urls = {url for one in mine.values() for url in one.urls}
    children = unregistered.ensure(connection, tenant_id, urls, seal)
    plans = [
        PlannedDelivery(
            document_id=mark.document_id,
            seq=mark.seq,
            version=documents[mark].version,
            destination_id=route.destination_id,
            reason=route.reason,
            rank=route.rank(documents[mark].priority),
            batch_id=mark.batch_id,
        )
        for mark, one in mine.items()
        for route in (
            *one.routes,
            *(Route(children[url], reason) for url, reason in one.urls.items() if url in children),
        )
    ]
    planned = deliveries.plan(connection, tenant_id, plans)
    tallies.add(connection, tenant_id, [("planned", planned)])
    return sorted(tallies.per_destination(planned))


def as_unplanned(document: IncomingDocument, mark: Mark) -> UnplannedDocument:
    """Return a document that has just been stored and marked."""
    return UnplannedDocument(
        mark=mark,
        document=RoutedDocument.of(document),
        prediction=document.prediction,
    )


class Replanner:
    """Looks for marks that nobody has taken up: left by failures, and by processes that died."""

    def __init__(self, parts: Planning, *, every_seconds: float = LOOK_EVERY_SECONDS) -> None:
        """Keep the parts.

        Args:
            parts: to plan with.
            every_seconds: between looks.
        """
        self._parts = parts
        self._every_seconds = every_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replanner", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End behind the work that is under way."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_seconds):
            try:
                self.look()
            except (DatabaseUnavailable, SQLAlchemyError) as error:
                LOG.warning("replanning.failed", reason=str(error).splitlines()[0])
            except Exception:
                LOG.exception("replanning.failed")  # as in the sweeper

    def look(self) -> None:
        """Plan what is due: together what nobody has taken, one by one what somebody had."""
        self._in_transaction(
            lambda connection: unplanned.drop_outdated(connection, DEFAULT_TENANT, limit=1_000)
        )
        self._plan_due(MOST_AT_ONCE, suspect=False)
        aside = self._in_transaction(
            lambda connection: unplanned.set_silent_aside(
                connection, DEFAULT_TENANT, limit=MOST_AT_ONCE
            ),
            durable=True,
        )
        for document_id in aside:
            LOG.error("document.set_aside", document=str(document_id), reason=unplanned.SILENT)
        self._plan_due(1, suspect=True)

    def _plan_due(self, at_once: int, *, suspect: bool) -> None:
        def take(connection: Connection) -> list[UnplannedDocument]:
            return unplanned.take_due(connection, DEFAULT_TENANT, limit=at_once, suspect=suspect)

        while not self._stopping.is_set():
            # On disk before anybody is asked, should that take more down than this process.
            due = self._in_transaction(take, durable=suspect)
            plan(self._parts, DEFAULT_TENANT, due)
            if len(due) < at_once:
                return

    def _in_transaction(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        with transaction(self._parts.engine, durable=durable) as connection:
            return work(connection)
