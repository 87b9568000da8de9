"""Filling a queue without its web process, through each side's own code."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from app.domain.documents import Lane
from app.domain.identifiers import new_id
from app.queue.connection import connect_async
from app.queue.intake import Intake
from app.settings import Settings
from bench import tutorial

CHUNK = 500


def fill_docyard(redis_url: str, texts: Sequence[str], lane: Lane = Lane.NORMAL) -> None:
    """Append documents as the web process does, in full chunks."""
    asyncio.run(append(redis_url, texts, lane))


async def append(redis_url: str, texts: Sequence[str], lane: Lane) -> None:
    """Do that on a running loop."""
    client = connect_async(redis_url)
    intake = Intake(client, namespace=Settings.model_fields["redis_namespace"].default)
    for start in range(0, len(texts), CHUNK):
        some = texts[start : start + CHUNK]
        await intake.submit_many(
            [orjson.dumps({"id": str(new_id()), "content": text}) for text in some], lane
        )
    await intake.close()
    await client.aclose()


def fill_tutorial(redis_url: str, texts: Sequence[str]) -> None:
    """Send one message per document, as the tutorial's endpoint does."""
    actor = tutorial.make_actor(redis_url)
    for text in texts:
        actor.send(tutorial.new_document_id(), text)
