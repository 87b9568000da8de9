"""``GET /ledger``: what came in, what became of it, and what does not add up."""

from __future__ import annotations

import uuid
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import AwareDatetime, BaseModel, ConfigDict

from app.api.parts import Parts, parts_of
from app.domain.documents import DEFAULT_TENANT
from app.queue.accepted import read_counts
from app.services.ledger import Ledger, read_ledger

router = APIRouter(tags=["ledger"])


class DocumentSumsOutput(BaseModel):
    """`queued_before + accepted = stored + stale + rejected + dead + dropped + queued`."""

    model_config = ConfigDict(from_attributes=True)

    queued_before: int
    accepted: int
    stored: int
    stale: int
    rejected: int
    dead: int
    dropped: int
    queued: int
    deleted: int


class DestinationSumsOutput(BaseModel):
    """`open_before + planned = delivered + failed + superseded + cancelled + open`."""

    model_config = ConfigDict(from_attributes=True)

    destination_id: uuid.UUID
    destination_key: str | None
    open_before: int
    planned: int
    delivered: int
    failed: int
    superseded: int
    cancelled: int
    open: int


class FindingOutput(BaseModel):
    """Something that does not add up: `kind` for programs, `detail` for people."""

    model_config = ConfigDict(from_attributes=True)

    kind: str
    detail: str
    count: int
    where: dict[str, Any]


class LedgerOutput(BaseModel):
    """The sums of a range of whole hours, and what does not add up at this moment.

    `unchecked` names what could not be looked at in the time that there was.
    """

    since: datetime | None
    until: datetime | None
    adds_up: bool
    documents: DocumentSumsOutput
    destinations: list[DestinationSumsOutput]
    findings: list[FindingOutput]
    unchecked: list[str]


@router.get("/ledger")
async def read_the_ledger(
    parts: Annotated[Parts, Depends(parts_of)],
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> LedgerOutput:
    """Add up what came in and what became of it, and compare that with the rows.

    `since` and `until` are rounded down to whole hours; without them the ledger is of all time.
    """
    found = await read_ledger(
        parts.engine,
        partial(read_counts, parts.redis, parts.settings.redis_namespace),
        DEFAULT_TENANT,
        since=since,
        until=until,
    )
    return ledger_output(found)


def ledger_output(found: Ledger) -> LedgerOutput:
    """Return what is shown of a ledger."""
    return LedgerOutput(
        since=found.since,
        until=found.until,
        adds_up=found.adds_up,
        documents=DocumentSumsOutput.model_validate(found.documents),
        destinations=[DestinationSumsOutput.model_validate(one) for one in found.destinations],
        findings=[FindingOutput.model_validate(one) for one in found.findings.items],
        unchecked=found.findings.unchecked,
    )
