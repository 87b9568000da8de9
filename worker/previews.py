"""Answers the web's questions about documents that are not stored: what would become of this?"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import redis
import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import DatabaseUnavailable, RouterFailed
from app.domain.predictions import Prediction
from app.domain.routers import RoutedDocument
from app.domain.text import sentence_of
from app.queue import questions
from app.queue.connection import SERVER_ERRORS
from app.queue.questions import Question
from app.storage import documents
from app.storage.documents import prediction_of
from app.storage.engine import transaction
from worker.classification import ModelHolder
from worker.planning import Planning
from worker.router_host import Question as RoutingQuestion

LOG = structlog.get_logger(__name__)
LOOK_EVERY_SECONDS = 1.0
"""Without an announcement, which may be lost."""
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What answering needs.

    Attributes:
        planning: of the user's router, None where the web can route by itself.
    """

    model: ModelHolder
    planning: Planning | None


def preview(parts: Preview, asked: dict[str, Any]) -> dict[str, Any]:
    """Answer one question.

    Args:
        parts: to answer with.
        asked: as ``app.services.previews`` asks it.

    Returns:
        ``prediction`` (null without a model), ``fault`` where the text cannot be classified, and
        where a router chooses ``routes`` and ``urls``, or its ``failure``.
    """
    if asked["stored"] is not None:
        return _of_stored(parts, asked["tenant_id"], uuid.UUID(asked["stored"]))
    document = asked["document"]
    prediction = Prediction(**asked["prediction"]) if asked["prediction"] else None
    if asked["classify"]:
        try:
            (prediction,) = parts.model.classify([document["content"]])
        except Exception as error:  # noqa: BLE001  (models are the user's as well)
            return {"fault": sentence_of(error)}
    now = datetime.now(UTC)
    routed = RoutedDocument(
        **{**document, "id": uuid.UUID(document["id"])}, created_at=now, updated_at=now
    )
    return {
        "prediction": prediction and asdict(prediction),
        **_route(parts, asked["tenant_id"], routed, prediction),
    }


def _of_stored(parts: Preview, tenant_id: int, document_id: uuid.UUID) -> dict[str, Any]:
    assert parts.planning is not None  # noqa: S101  (the web classifies nothing that is stored)
    with transaction(parts.planning.engine, durable=False) as connection:
        document = documents.get(connection, tenant_id, document_id)
    if document is None:
        return {"failure": "the document was deleted meanwhile"}
    return _route(parts, tenant_id, RoutedDocument.of(document), prediction_of(document))


def _route(
    parts: Preview, tenant_id: int, document: RoutedDocument, prediction: Prediction | None
) -> dict[str, Any]:
    planning = parts.planning
    if planning is None:
        return {}
    with transaction(planning.engine, durable=False) as connection:
        table = planning.destinations.table(connection, tenant_id)
    (answer,) = planning.router.ask([RoutingQuestion(document, prediction)], table)
    if isinstance(answer, RouterFailed):
        return {"failure": answer.reason}
    return {
        "routes": [[str(one.destination_id), one.reason] for one in answer.routes],
        "urls": answer.urls,
    }


class Previewer:
    """Answers on a thread of its own, so that a full queue keeps nobody waiting."""

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        answer: Callable[[dict[str, Any]], dict[str, Any]],
        rung: threading.Event,
        *,
        every_seconds: float = LOOK_EVERY_SECONDS,
    ) -> None:
        """Keep the parts.

        Args:
            client: where the questions are.
            namespace: prefix of the keys.
            answer: makes an answer of a question.
            rung: set when there may be a question.
            every_seconds: between looks without that.
        """
        self._every_seconds = every_seconds
        self._client = client
        self._namespace = namespace
        self._answer = answer
        self._rung = rung
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="previews", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End behind the question that is being answered."""
        self._stopping.set()
        self._rung.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._rung.wait(self._every_seconds)
            self._rung.clear()
            try:
                while not self._stopping.is_set():
                    question = questions.take(self._client, self._namespace)
                    if question is None:
                        break
                    self._settle(question)
            except SERVER_ERRORS as error:
                LOG.warning("previews.unavailable", reason=str(error))
                self._stopping.wait(PAUSE_SECONDS)

    def _settle(self, question: Question) -> None:
        try:
            found = self._answer(question.content)
        except (DatabaseUnavailable, SQLAlchemyError) as error:
            # The web gives up by itself.
            LOG.warning("preview.failed", reason=str(error).splitlines()[0])
        except Exception:
            # Beside a newer version, say, whose questions have more in them.
            LOG.exception("preview.failed")
        else:
            questions.answer(self._client, self._namespace, question, found)
