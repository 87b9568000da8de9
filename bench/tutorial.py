"""The tutorial's design on today's versions, as a baseline.

A ``def`` endpoint sends one Dramatiq message per document; the actor predicts one document with
scikit-learn's own pipeline, looks the row up with ``session.get`` and commits it. Same model file,
same servers. ``uvicorn bench.tutorial:make_app --factory`` and ``dramatiq bench.tutorial:setup``.
"""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import Engine
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, create_engine

from app.storage.engine import sqlalchemy_url
from models.artifact import DEFAULT_PATH, load_pipeline


class TutorialModel(SQLModel, registry=registry()):
    """A registry of its own, apart from Docyard's tables."""


class TutorialDocument(TutorialModel, table=True):
    """A stored document."""

    __tablename__ = "tutorial_documents"

    id: uuid.UUID = Field(primary_key=True)
    content: str
    category: str
    created_at: datetime


class TutorialInput(BaseModel):
    """A document as it is sent."""

    content: str


def make_table(database_url: str) -> None:
    """Make the table."""
    made = create_engine(sqlalchemy_url(database_url))
    TutorialModel.metadata.create_all(made)
    made.dispose()


@lru_cache(maxsize=1)
def engine() -> Engine:
    """Return this process's engine."""
    return create_engine(sqlalchemy_url(os.environ["DATABASE_URL"]), pool_size=8)


@lru_cache(maxsize=1)
def model() -> Any:
    """Return scikit-learn's pipeline."""
    return load_pipeline(DEFAULT_PATH)


def store(document_id: str, content: str) -> None:
    """Classify and store one document."""
    category = str(model().predict([content])[0])
    key = uuid.UUID(document_id)
    with Session(engine()) as session:
        document = session.get(TutorialDocument, key)
        if document is None:
            document = TutorialDocument(
                id=key, content=content, category=category, created_at=datetime.now(UTC)
            )
        document.category = category
        session.add(document)
        session.commit()


def new_document_id() -> str:
    """Return an id as the endpoint makes it."""
    return str(uuid.uuid4())


def make_actor(redis_url: str) -> dramatiq.Actor[Any, Any]:
    """Return the actor on a broker as the tutorial configures it."""
    broker = RedisBroker(client=redis.Redis.from_url(redis_url))
    dramatiq.set_broker(broker)
    declare = dramatiq.actor(broker=broker, actor_name="store", queue_name="documents")
    actor: dramatiq.Actor[Any, Any] = declare(store)
    return actor


def setup() -> None:
    """Prepare a worker process."""
    make_actor(os.environ["REDIS_URL"])


def make_app() -> FastAPI:
    """Return the web application."""
    app = FastAPI()
    actor = make_actor(os.environ["REDIS_URL"])

    @app.post("/documents", status_code=202)
    def post_document(document: TutorialInput) -> dict[str, str]:
        document_id = new_document_id()
        actor.send(document_id, document.content)
        return {"id": document_id}

    return app
