"""What would become of a document: who gets it, who does not, and why."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from app.domain.choice import Routable
from app.domain.destinations import Destination
from app.domain.errors import DocumentNotFound, InvalidInput, RouterFailed, Violation
from app.domain.identifiers import new_id
from app.domain.predictions import Prediction
from app.domain.routing import RoutingTable, Verdict, why_out
from app.queue.questions import Asker
from app.storage import destinations, documents
from app.storage.documents import prediction_of
from app.storage.engine import transaction
from app.storage.tables.documents import Document

NOT_CHOSEN = "the router did not choose it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A document to preview that need not be stored.

    Attributes:
        document: what routing reads of it.
        prediction: its category; None: it is to be classified.
        content: its text, "" where only the category is given.
    """

    document: Routable
    prediction: Prediction | None
    content: str
    version: int
    priority: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A route that the document would have; ``destination`` is None for a URL of a router's."""

    destination: Destination | None
    url: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What would become of a document.

    Attributes:
        prediction: that it was judged by; None when it has no category.
        routes: who gets it.
        others: who does not, with the reasons.
        explanation: why nobody does, None when somebody does.
    """

    prediction: Prediction | None
    routes: Sequence[Expected]
    others: Sequence[tuple[Destination, str]]
    explanation: str | None


async def preview_stored(
    engine: Engine, asker: Asker, tenant_id: int, document_id: uuid.UUID, *, router: str | None
) -> Preview:
    """Preview a document as it is stored.

    Args:
        engine: the database.
        asker: asks an ingest worker for what the web cannot know.
        tenant_id: whose.
        document_id: which.
        router: the user's own, if there is one; only workers run it.

    Raises:
        DocumentNotFound: it may still be queued.
        RouterFailed: the user's router did not answer.
        WorkerSilent: no worker answered in time.
    """
    document, known = await run_in_threadpool(_read, engine, tenant_id, document_id)
    if document is None:
        raise DocumentNotFound(document_id)
    if router is None:
        return await run_in_threadpool(_by_table, known, document, prediction_of(document))
    answer = await asker.ask({"tenant_id": tenant_id, "stored": document_id})
    return _by_router(known, prediction_of(document), answer, router)


async def preview_given(
    engine: Engine, asker: Asker, tenant_id: int, given: Given, *, router: str | None
) -> Preview:
    """Preview a document that need not be stored; parameters as of ``preview_stored``.

    Raises:
        InvalidInput: its text cannot be classified.
        RouterFailed: the user's router did not answer.
        WorkerSilent: no worker answered in time.
    """
    prediction, classify = given.prediction, given.prediction is None
    answer: dict[str, Any] = {}
    if classify or router is not None:
        answer = await asker.ask(_question(tenant_id, given, classify=classify))
        if fault := answer.get("fault"):
            raise InvalidInput([Violation("/content", f"cannot be classified: {fault}")])
        prediction = Prediction(**answer["prediction"]) if answer["prediction"] else None
    _, known = await run_in_threadpool(_read, engine, tenant_id, None)
    if router is None:
        return await run_in_threadpool(_by_table, known, given.document, prediction)
    return _by_router(known, prediction, answer, router)


def _read(
    engine: Engine, tenant_id: int, document_id: uuid.UUID | None
) -> tuple[Document | None, list[Destination]]:
    with transaction(engine) as connection:
        document = (
            None if document_id is None else documents.get(connection, tenant_id, document_id)
        )
        return document, destinations.list_all(connection, tenant_id)


def _question(tenant_id: int, given: Given, *, classify: bool) -> dict[str, Any]:
    document = given.document
    return {
        "tenant_id": tenant_id,
        "stored": None,
        "classify": classify,
        "prediction": given.prediction and asdict(given.prediction),
        "document": {
            "id": document.id or new_id(),
            "version": given.version,
            "content": given.content,
            "topics": document.topics,
            "keys": document.keys,
            "delivery": document.delivery,
            "priority": given.priority,
            "attributes": document.attributes,
        },
    }


def _by_table(
    known: Sequence[Destination], document: Routable, prediction: Prediction | None
) -> Preview:
    table = RoutingTable(known)
    verdicts = table.explain(document, prediction)
    return _preview(
        known, prediction, verdicts, urls={}, explanation=table.why_nobody(document, prediction)
    )


def _by_router(
    known: Sequence[Destination],
    prediction: Prediction | None,
    answer: dict[str, Any],
    router: str,
) -> Preview:
    if failure := answer.get("failure"):
        raise RouterFailed(failure)
    chosen = {uuid.UUID(one): reason for one, reason in answer["routes"]}
    verdicts = [
        Verdict(one.id, one.id in chosen, chosen.get(one.id, why_out(one) or NOT_CHOSEN))
        for one in known
    ]
    nobody = not chosen and not answer["urls"]
    return _preview(
        known,
        prediction,
        verdicts,
        urls=answer["urls"],
        explanation=f"The router {router} chose no destination." if nobody else None,
    )


def _preview(
    known: Sequence[Destination],
    prediction: Prediction | None,
    verdicts: Sequence[Verdict],
    *,
    urls: dict[str, str],
    explanation: str | None,
) -> Preview:
    judged = list(zip(known, verdicts, strict=True))
    return Preview(
        prediction=prediction,
        routes=[
            *(
                Expected(destination=one, url=one.url, reason=verdict.reason)
                for one, verdict in judged
                if verdict.routed
            ),
            *(Expected(destination=None, url=url, reason=reason) for url, reason in urls.items()),
        ],
        others=[(one, verdict.reason) for one, verdict in judged if not verdict.routed],
        explanation=explanation,
    )
