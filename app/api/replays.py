"""``/deliveries/replay``: many ended deliveries planned anew."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field
from sqlalchemy import Engine

from app.api.delivery_filters import DeliveryWhere
from app.api.parts import engine_of
from app.domain.documents import DEFAULT_TENANT
from app.services.deliveries import count_replay, read_replay, start_replay
from app.storage.replays import ReplayJob

router = APIRouter(tags=["deliveries"])


class ReplayInput(DeliveryWhere):
    """Which ended deliveries to plan anew."""

    state: Annotated[
        list[Literal["failed", "delivered", "cancelled"]],
        Field(min_length=1, default_factory=lambda: ["failed"]),
    ]
    dry_run: Annotated[bool, Field(description="Only count what would be planned.")] = False


class ReplayCountOutput(BaseModel):
    """What a replay would do; ``complete`` is false where counting took too long."""

    dry_run: Literal[True] = True
    planned: int
    skipped: int
    complete: bool


class ReplayOutput(BaseModel):
    """A replay: how many were planned anew so far, and how many could not be."""

    id: uuid.UUID
    planned: int
    skipped: int
    created_at: datetime
    finished_at: datetime | None


@router.post(
    "/deliveries/replay",
    status_code=202,
    responses={200: {"model": ReplayCountOutput, "description": "The count of a dry run."}},
)
def replay_many(
    given: ReplayInput, response: Response, engine: Annotated[Engine, Depends(engine_of)]
) -> ReplayOutput | ReplayCountOutput:
    """Plan anew what failed, or what else the filter finds; `dry_run` counts it first.

    The workers do it piece by piece. Skipped is what is open again, was replaced by a newer
    version, or has lost its document or destination.
    """
    by = given.filter(engine, tuple(given.state))
    if given.dry_run:
        response.status_code = 200
        count = count_replay(engine, DEFAULT_TENANT, by)
        return ReplayCountOutput(
            planned=count.planned, skipped=count.skipped, complete=count.complete
        )
    job = start_replay(engine, DEFAULT_TENANT, by)
    response.headers["Location"] = f"/deliveries/replays/{job.id}"
    return _output(job)


@router.get("/deliveries/replays/{replay_id}")
def read_one_replay(
    replay_id: uuid.UUID, engine: Annotated[Engine, Depends(engine_of)]
) -> ReplayOutput:
    """Return how far a replay is."""
    return _output(read_replay(engine, DEFAULT_TENANT, replay_id))


def _output(job: ReplayJob) -> ReplayOutput:
    return ReplayOutput(
        id=job.id,
        planned=job.planned,
        skipped=job.skipped,
        created_at=job.created_at,
        finished_at=job.finished_at,
    )
