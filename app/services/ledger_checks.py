"""What does not add up: counters against rows, and rows that cannot be as they are.

A healthy installation is counted and nothing more. Only where a count is short is it asked which
row is missing, or at least of which hour.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.domain.delivery_ids import DeliveryPlace, delivery_id
from app.storage import ledger, ledger_places
from app.storage.delivery_search import seq_of
from app.storage.engine import CANCELED, sqlstate
from app.storage.ledger import ENDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that does not add up.

    Attributes:
        kind: stable and machine-readable.
        detail: a sentence for people.
        count: how many are missing or wrong; at least so many, where rows are named.
        where: ids and hours, as JSON can carry them.
    """

    kind: str
    detail: str
    count: int
    where: dict[str, Any]


@dataclass(slots=True)
class Findings:
    """What was found, and what could not be looked at in the time that there was."""

    items: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def add(self, kind: str, detail: str, *, count: int, **where: Any) -> None:
        """Note something that does not add up."""
        self.items.append(Finding(kind=kind, detail=detail, count=count, where=where))


def check(connection: Connection, tenant_id: int, *, since: datetime | None = None) -> Findings:
    """Look for what does not add up, now.

    Args:
        connection: a snapshot.
        tenant_id: whose.
        since: rows are named that were accepted behind it; counts are of all time.
    """
    look = _Look(connection, tenant_id, since)
    for name, part in (
        ("documents", look.documents),
        ("rejected documents", look.rejected),
        ("dead letters", look.dead_letters),
        ("open deliveries", look.open_deliveries),
        ("failed deliveries", look.failed_deliveries),
        ("deliveries", look.deliveries),
        ("documents of open deliveries", look.order),
        ("deliveries of deleted destinations", look.deleted_destinations),
        ("documents to be routed", look.unrouted),
    ):
        with look.bounded(name):
            part()
    return look.found


class _Look:
    """One look at everything, in one snapshot."""

    def __init__(self, connection: Connection, tenant_id: int, since: datetime | None) -> None:
        self.found = Findings()
        self._at = connection, tenant_id
        self._since = since
        self._first_seq = 0 if since is None else seq_of(since)
        self._sums = ledger.sums(connection, tenant_id)
        self._keys = ledger.keys_of(connection, tenant_id)

    @contextmanager
    def bounded(self, name: str) -> Iterator[None]:
        """Let a look take as long as a statement may; longer, and it is said to be unchecked."""
        try:
            with self._at[0].begin_nested():
                yield
        except DBAPIError as error:
            if sqlstate(error) != CANCELED:
                raise
            self.found.unchecked.append(name)

    def documents(self) -> None:
        """Count the documents that are stored; name those that deliveries lead to."""
        total = self._sums.total
        kept = total("documents.created") - total("documents.deleted") - total("documents.removed")
        missing = kept - ledger.documents(*self._at)
        if missing <= 0:
            return
        sentence = f"{missing} stored documents are gone from documents."
        self.found.add("documents_missing", sentence, count=missing)
        with self.bounded("which documents are gone"):
            for one in ledger_places.missing_documents(*self._at, first_seq=self._first_seq):
                self.found.add(
                    "document_missing",
                    f"Document {one.document_id} (seq {one.seq}) is gone and was not deleted;"
                    " there are deliveries of it.",
                    count=1,
                    document_id=str(one.document_id),
                    seq=one.seq,
                )

    def rejected(self) -> None:
        """Count what is set aside; name the chunks of which some is not."""
        total = self._sums.total
        kept = total("rejected.created") - total("rejected.removed")
        missing = kept - ledger.rejected(*self._at)
        if missing <= 0:
            return
        sentence = f"{missing} rejected documents are gone, neither retried nor dropped."
        self.found.add("rejected_missing", sentence, count=missing)
        with self.bounded("which rejected documents are gone"):
            for one in ledger_places.chunks_with_fewer_rejected(*self._at):
                self.found.add(
                    "rejected_missing_in_chunk",
                    f"Chunk {one.chunk_id} had {one.rejected} documents rejected, and {one.rows}"
                    " are set aside.",
                    count=one.rejected - one.rows,
                    chunk_id=str(one.chunk_id),
                )

    def dead_letters(self) -> None:
        """Count the dead letters."""
        total = self._sums.total
        kept = total("dead_letters.created") - total("dead_letters.removed")
        if (missing := kept - ledger.dead_letters(*self._at)[0]) > 0:
            sentence = f"{missing} dead letters are gone, neither retried nor dropped."
            self.found.add("dead_letters_missing", sentence, count=missing)

    def open_deliveries(self) -> None:
        """Compare what is open with what was planned and has not ended."""
        rows = ledger.open_deliveries(*self._at)
        for one in self._sums.destinations():
            ended = sum(self._sums.total(f"deliveries.{name}", one) for name in ENDS)
            counted = self._sums.total("deliveries.planned", one) - ended
            if counted != (there := rows.get(one, 0)):
                self.found.add(
                    "open_deliveries_differ",
                    f"Destination {self._name(one)} has {there} open deliveries; planned less ended"
                    f" is {counted}.",
                    count=abs(counted - there),
                    destination_id=str(one),
                )
        for one in sorted(rows.keys() - self._keys.keys()):
            self._open_in_vain(one, "is not there")

    def failed_deliveries(self) -> None:
        """Compare what has failed; it is what people look for, and replay."""
        rows = ledger.failed_deliveries(*self._at)
        for one in self._sums.destinations():
            removed = self._sums.total("deliveries.removed.failed", one)
            counted = self._sums.total("deliveries.failed", one) - removed
            if counted != (there := rows.get(one, 0)):
                self.found.add(
                    "failed_deliveries_differ",
                    f"Destination {self._name(one)} has {there} failed deliveries; counted, and not"
                    f" removed, are {counted}.",
                    count=abs(counted - there),
                    destination_id=str(one),
                )

    def deliveries(self) -> None:
        """Count the deliveries; where some are gone name them, or the hour of their plan."""
        kept = {
            one: self._sums.total("deliveries.planned", one) - self._sums.removed(one)
            for one in self._sums.destinations()
        }
        if ledger.all_deliveries(*self._at) >= sum(kept.values()):
            return
        rows = ledger.deliveries(*self._at)
        for one, number in kept.items():
            if (missing := number - rows.get(one, 0)) > 0:
                sentence = f"{missing} deliveries to {self._name(one)} were planned and are gone."
                self.found.add(
                    "deliveries_missing", sentence, count=missing, destination_id=str(one)
                )
                if self._name_attempted(one) < missing:
                    self._name_hours(one, missing)

    def _name_attempted(self, one: uuid.UUID) -> int:
        named: list[DeliveryPlace] = []
        with self.bounded(f"which deliveries to {self._name(one)} are gone"):
            named = ledger_places.attempts_without_delivery(*self._at, one, since=self._since)
        for place in named:
            self.found.add(
                "delivery_missing",
                f"Delivery {delivery_id(place)} is gone; there are attempts at it.",
                count=1,
                delivery_id=delivery_id(place),
                document_id=str(place.document_id),
                destination_id=str(one),
            )
        return len(named)

    def _name_hours(self, one: uuid.UUID, missing: int) -> None:
        with self.bounded(f"when the deliveries to {self._name(one)} that are gone were planned"):
            for hour in ledger_places.hours_that_differ(*self._at, one):
                short = hour.planned - hour.rows
                self.found.add(
                    "deliveries_missing_in_hour",
                    f"Of {hour.planned} deliveries to {self._name(one)} that were planned in the"
                    f" hour from {hour.hour.astimezone(UTC):%Y-%m-%d %H:%M} UTC, {short} are gone.",
                    count=short,
                    hour=hour.hour.astimezone(UTC).isoformat(),
                    destination_id=str(one),
                )
                self._name_suspects(one, hour.hour)
                missing -= short
                if missing <= 0:
                    # Before that, it is retention that has left fewer.
                    return

    def _name_suspects(self, one: uuid.UUID, hour: datetime) -> None:
        for suspect in ledger_places.documents_without_delivery(*self._at, one, hour):
            self.found.add(
                "document_without_delivery",
                f"Document {suspect.document_id} (seq {suspect.seq}) of that time has no delivery"
                f" to {self._name(one)}.",
                count=1,
                document_id=str(suspect.document_id),
                seq=suspect.seq,
                destination_id=str(one),
            )

    def order(self) -> None:
        """Look whether open deliveries are of what is stored."""
        for place, stored in ledger_places.open_in_vain(*self._at, first_seq=self._first_seq):
            name = delivery_id(place)
            where = {"delivery_id": name, "document_id": str(place.document_id)}
            if stored is None:
                sentence = f"Delivery {name} is open, and its document is not there."
                self.found.add("delivery_without_document", sentence, count=1, **where)
            else:
                sentence = (
                    f"Delivery {name} is open for seq {place.seq}, and its document is stored with"
                    f" seq {stored}."
                )
                self.found.add("order_lost", sentence, count=1, **where)

    def deleted_destinations(self) -> None:
        """Look whether anything is open for destinations that were deleted."""
        for one in ledger_places.open_of_deleted(*self._at):
            self._open_in_vain(one, "was deleted")

    def _open_in_vain(self, one: uuid.UUID, why: str) -> None:
        self.found.add(
            "open_of_deleted_destination",
            f"Destination {self._name(one)} {why} and still has open deliveries.",
            count=1,
            destination_id=str(one),
        )

    def unrouted(self) -> None:
        """Look whether documents wait to be routed that nobody takes up."""
        for one in ledger_places.unrouted(*self._at):
            self.found.add(
                "document_not_routed",
                f"Document {one} is stored, and nobody routes it. Does a worker run?",
                count=1,
                document_id=str(one),
            )

    def _name(self, destination_id: uuid.UUID) -> str:
        return self._keys.get(destination_id) or str(destination_id)
