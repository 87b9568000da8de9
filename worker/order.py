"""The order in which a holder sends what it has read: the queue type, and versions one by one."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Reversible

from app.domain.delivery_rules import QueueKind
from app.domain.documents import OrderKey
from app.storage.due import DueDelivery

MOST_REMEMBERED = 10_000
"""Documents whose newest version is kept in mind behind its delivery."""


def in_order(rows: Iterable[DueDelivery], queue: QueueKind) -> list[DueDelivery]:
    """Return rows never tried, the one to be sent first in front."""
    by_age = sorted(rows, key=lambda one: (one.rank, one.key.seq))
    return by_age[::-1] if queue == "lifo" else by_age


class VersionOrder:
    """Lets one version of a document go at a time, and no older one behind a newer.

    In the database an older version is superseded as soon as a newer one is stored. In memory it
    may still be queued, read before that; and its request may still be under way. Newer is what
    wins there: the client's version counts before the order in which they were accepted.
    """

    def __init__(self) -> None:
        self._newest: dict[uuid.UUID, OrderKey] = {}
        self._in_flight: set[uuid.UUID] = set()
        self._waiting: dict[uuid.UUID, list[DueDelivery]] = {}

    def see(self, rows: Iterable[DueDelivery]) -> None:
        """Rows have been read."""
        for row in rows:
            seen = OrderKey(row.version, row.key.seq)
            known = self._newest.get(row.key.document_id, seen)
            self._newest[row.key.document_id] = max(known, seen)
        if len(self._newest) > MOST_REMEMBERED:
            self._forget()

    def is_outdated(self, row: DueDelivery) -> bool:
        """Tell whether a newer version has been read, so that this one must not go any more."""
        newest = self._newest.get(row.key.document_id)
        return newest is not None and OrderKey(row.version, row.key.seq) < newest

    def begin(self, row: DueDelivery) -> bool:
        """Let a row go; False where it must wait for another version, and has been put aside."""
        document_id = row.key.document_id
        if document_id in self._in_flight:
            self._waiting.setdefault(document_id, []).append(row)
            return False
        self._in_flight.add(document_id)
        return True

    def end(self, row: DueDelivery) -> Reversible[DueDelivery]:
        """A request is over; return the rows that waited for it, the oldest first."""
        self._in_flight.discard(row.key.document_id)
        return self._waiting.pop(row.key.document_id, ())

    def clear(self) -> list[DueDelivery]:
        """Let nothing wait any more; return what did."""
        waited = [row for rows in self._waiting.values() for row in rows]
        self._waiting.clear()
        return waited

    def _forget(self) -> None:
        """Keep the younger half."""
        half = sorted(self._newest.items(), key=lambda one: one[1].seq)[MOST_REMEMBERED // 2 :]
        self._newest = dict(half)
