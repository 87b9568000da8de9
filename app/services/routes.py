"""Where documents go, and why: those that are stored, and those that might be."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from app.domain.errors import DocumentNotFound
from app.domain.routing import RoutingTable
from app.storage import destinations, document_deliveries, documents, unplanned
from app.storage.document_deliveries import DeliveryPlace, DocumentDelivery
from app.storage.engine import transaction
from app.storage.tables.documents import Document
from app.storage.unplanned import Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where a document went.

    Attributes:
        routes: of the version that is stored; None when the document was deleted.
        explanation: a sentence for people; says why where there are no routes.
        deliveries: a page of them, of older versions as well.
        next: where the next page begins, None on the last.
        unplanned: while it is stored and not routed yet; None otherwise.
    """

    routes: int | None
    explanation: str
    deliveries: Sequence[DocumentDelivery]
    next: DeliveryPlace | None
    unplanned: Waiting | None


def where_document_went(
    engine: Engine,
    tenant_id: int,
    document_id: uuid.UUID,
    *,
    limit: int,
    after: DeliveryPlace | None,
    router: str | None = None,
) -> Whereabouts:
    """Return the routes of a document, each with its reason and what has become of it.

    Args:
        engine: the database.
        tenant_id: whose.
        document_id: which.
        limit: of the page.
        after: where it begins.
        router: the user's own, where one chooses instead of the table.

    Raises:
        DocumentNotFound: it may still be queued.
    """
    with transaction(engine) as connection:
        document = documents.get(connection, tenant_id, document_id)
        found = document_deliveries.list_page(
            connection, tenant_id, document_id, limit=limit + 1, after=after
        )
        if document is None and not found and after is None:
            raise DocumentNotFound(document_id)
        routes = waiting = None
        if document is None:
            explanation = "The document was deleted; what was open was cancelled."
        else:
            waiting = unplanned.of_document(connection, tenant_id, document_id)
            routes = document_deliveries.count_of_version(
                connection, tenant_id, document_id, document.seq
            )
            if routes:
                explanation = f"It goes to {routes} destination{'s' if routes > 1 else ''}."
            elif waiting is not None:
                explanation = _why_unplanned(waiting)
            elif router is not None:
                explanation = f"No destination gets it. The router {router} chose none."
            else:
                table = RoutingTable(destinations.list_all(connection, tenant_id))
                explanation = _why_nobody(document, table)
    page = found[:limit]
    return Whereabouts(
        routes=routes,
        explanation=explanation,
        deliveries=page,
        next=page[-1].place if len(found) > limit else None,
        unplanned=waiting,
    )


def _why_unplanned(waiting: Waiting) -> str:
    if waiting.error is None:
        return "It is stored, and about to be routed."
    return f"It is stored, and not routed yet: {waiting.error} It will be tried again."


def _why_nobody(document: Document, table: RoutingTable) -> str:
    nobody = table.why_nobody(document, documents.prediction_of(document))
    if nobody is not None:
        return f"No destination gets it. As destinations are now: {nobody}"
    return (
        "No destination got it when it was stored. As destinations are now, some would: see"
        " POST /routes/preview."
    )
