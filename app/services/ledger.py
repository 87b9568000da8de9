"""The ledger: what came in, what became of it, and what does not add up.

::

    accepted = stored + stale + rejected + dead + dropped + queued
    planned  = delivered + failed + superseded + cancelled + open     per destination

and the rows are those that the counters say. Within Postgres one snapshot is compared, in which
both agree to the row. Redis is asked before and is at another moment; what seems to be missing
between the two is asked about again until it stays.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine
from starlette.concurrency import run_in_threadpool

from app.queue.accepted import QueueCounts
from app.services.ledger_checks import Findings, check
from app.storage import accepted, ledger
from app.storage.counters import NO_DESTINATION
from app.storage.engine import snapshot
from app.storage.ledger import ENDS, Sums

TRIES = 4
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSums:
    """Documents of a range: ``queued_before + accepted`` is the sum of the others but ``deleted``.

    Attributes:
        dead: in dead letters.
        dropped: with dead letters that somebody let go of.
        queued: at the end of the range.
        deleted: of those that were stored, at any time.
    """

    queued_before: int
    accepted: int
    stored: int
    stale: int
    rejected: int
    dead: int
    dropped: int
    queued: int
    deleted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSums:
    """Deliveries to a destination: ``open_before + planned`` is the sum of the others."""

    destination_id: uuid.UUID
    destination_key: str | None
    open_before: int
    planned: int
    delivered: int
    failed: int
    superseded: int
    cancelled: int
    open: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The sums of a range, and what does not add up.

    Attributes:
        since: the hour with which the range begins; None for the very beginning.
        until: the hour before which it ends; None for now.
        findings: what does not add up; looked for up to now only.
    """

    since: datetime | None
    until: datetime | None
    documents: DocumentSums
    destinations: list[DestinationSums]
    findings: Findings = field(default_factory=Findings)

    @property
    def adds_up(self) -> bool:
        """Whether nothing was found that does not add up."""
        return not self.findings.items


async def read_ledger(
    engine: Engine,
    ask_queue: Callable[[], Awaitable[QueueCounts]],
    tenant_id: int,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    statement_seconds: float = 5.0,
) -> Ledger:
    """Return the ledger, the range widened to whole hours.

    Args:
        engine: the database.
        ask_queue: asks Redis for its counts.
        tenant_id: whose.
        since: beginning of the range; what is named lies behind it.
        until: its end.
        statement_seconds: longest look at anything; what takes longer is said to be unchecked.

    Raises:
        Unavailable: Postgres or Redis cannot be asked.
    """
    hours = _hour(since), _hour(until)
    for number in range(TRIES):
        queue = await ask_queue()
        found = await run_in_threadpool(
            _read, engine, tenant_id, queue, hours, statement_seconds, number == 0
        )
        if number == 0:
            first = found
        else:
            # The rows were compared in the first snapshot; only the queue needs another look.
            found = replace(found, findings=first.findings)
        missing = _missing(found.documents, queue, hours)
        if missing <= 0:
            return found
        if number < TRIES - 1:
            await asyncio.sleep(PAUSE_SECONDS)
    found.findings.add(
        "accepted_lost",
        f"{missing} accepted documents are neither stored, stale, rejected, dead nor queued.",
        count=missing,
    )
    return found


def _missing(
    documents: DocumentSums, queue: QueueCounts, hours: tuple[datetime | None, datetime | None]
) -> int:
    """Return how many documents the queue should have and has not; 0 for a range in the past."""
    return 0 if hours[1] is not None else documents.queued - queue.queued - queue.dead


def _hour(moment: datetime | None) -> datetime | None:
    if moment is None:
        return None
    try:
        # Of UTC, by which is counted: zones of half an hour have others.
        return moment - (moment - datetime.fromtimestamp(0, UTC)) % timedelta(hours=1)
    except OverflowError:  # the calendar begins with this moment
        return moment


def _read(
    engine: Engine,
    tenant_id: int,
    queue: QueueCounts,
    hours: tuple[datetime | None, datetime | None],
    statement_seconds: float,
    checked: bool,  # noqa: FBT001  (given by position to a thread)
) -> Ledger:
    since, until = hours
    with snapshot(engine, statement_seconds=statement_seconds) as connection:
        sums = ledger.sums(connection, tenant_id, since=since, until=until)
        if until is None:
            sums.within[accepted.ACCEPTED, NO_DESTINATION] += accepted.beyond_marks(
                connection, tenant_id, queue.accepted
            )
        dead = ledger.dead_letters(connection, tenant_id)[1] if until is None else 0
        keys = ledger.keys_of(connection, tenant_id)
        findings = check(connection, tenant_id, since=since) if checked else Findings()
    return Ledger(
        since=since,
        until=until,
        documents=_documents(sums, dead),
        destinations=[_destination(sums, one, keys.get(one)) for one in sums.destinations()],
        findings=findings,
    )


def _documents(sums: Sums, dead: int) -> DocumentSums:
    def within(name: str) -> int:
        return sums.within[f"documents.{name}", NO_DESTINATION]

    def before(name: str) -> int:
        return sums.before[f"documents.{name}", NO_DESTINATION]

    settled = ("stored", "stale", "rejected", "dropped")
    # What is dead was queued before: it has no hour of its own.
    queued_before = before("accepted") - sum(map(before, settled))
    accepted_within = within("accepted")
    queued = queued_before + accepted_within - sum(map(within, settled)) - dead
    # What was accepted and settled between the looks at Redis and at Postgres.
    unseen = max(0, -queued)
    return DocumentSums(
        queued_before=queued_before,
        accepted=accepted_within + unseen,
        **{name: within(name) for name in settled},
        dead=dead,
        queued=queued + unseen,
        deleted=within("deleted"),
    )


def _destination(sums: Sums, one: uuid.UUID, key: str | None) -> DestinationSums:
    def within(name: str) -> int:
        return sums.within[f"deliveries.{name}", one]

    def before(name: str) -> int:
        return sums.before[f"deliveries.{name}", one]

    open_before = before("planned") - sum(map(before, ENDS))
    return DestinationSums(
        destination_id=one,
        destination_key=key,
        open_before=open_before,
        planned=within("planned"),
        **{name: within(name) for name in ENDS},
        open=open_before + within("planned") - sum(map(within, ENDS)),
    )
