"""Where documents go, and why: those that are stored, and those that might be."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from app.domain.errors import DocumentNotFound
from app.domain.predictions import Prediction
from app.domain.routing import RoutingTable
from app.storage import destinations, document_deliveries, documents
from app.storage.document_deliveries import DeliveryPlace, DocumentDelivery
from app.storage.engine import transaction
from app.storage.tables import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where a document went.

    Attributes:
        routes: of the version that is stored; None when the document was deleted.
        explanation: a sentence for people; says why where there are no routes.
        deliveries: a page of them, of older versions as well.
        next: where the next page begins, None on the last.
    """

    routes: int | None
    explanation: str
    deliveries: Sequence[DocumentDelivery]
    next: DeliveryPlace | None


def where_document_went(
    engine: Engine,
    tenant_id: int,
    document_id: uuid.UUID,
    *,
    limit: int,
    after: DeliveryPlace | None,
) -> Whereabouts:
    """Return the routes of a document, each with its reason and what has become of it.

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
        routes = None
        if document is None:
            explanation = "The document was deleted; what was open was cancelled."
        else:
            routes = document_deliveries.count_of_version(
                connection, tenant_id, document_id, document.seq
            )
            table = RoutingTable(() if routes else destinations.list_all(connection, tenant_id))
            explanation = _explain(document, routes, table)
    page = found[:limit]
    return Whereabouts(
        routes=routes,
        explanation=explanation,
        deliveries=page,
        next=page[-1].place if len(found) > limit else None,
    )


def _explain(document: Document, routes: int, table: RoutingTable) -> str:
    if routes:
        return f"It goes to {routes} destination{'s' if routes > 1 else ''}."
    nobody = table.why_nobody(document, prediction_of(document))
    if nobody is not None:
        return f"No destination gets it. As destinations are now: {nobody}"
    return (
        "No destination got it when it was stored. As destinations are now, some would: see"
        " POST /routes/preview."
    )


def prediction_of(document: Document) -> Prediction | None:
    """Return what the model said of a stored document."""
    if document.category is None or document.confidence is None:
        return None
    return Prediction(document.category, document.confidence, document.model_version or "")
