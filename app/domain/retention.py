"""How long things are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class Kept(StrEnum):
    """Kinds of rows that have a limit of their own, in the order in which they go.

    Attempts go by the day and are no part of this (``app.storage.attempt_days``).
    """

    DOCUMENTS = "documents"
    DELIVERIES = "deliveries"
    RESULTS = "results"
    STEPS = "steps"
    EVENTS = "events"
    REJECTED = "rejected"
    BATCHES = "batches"
    REPLAYS = "replays"
    COUNTERS = "counters"
    RECEIPTS = "receipts"
    TOMBSTONES = "tombstones"


GUARDS = frozenset({Kept.RECEIPTS, Kept.TOMBSTONES})
"""They keep out what comes again, or late; so they stay while anything older could still come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """Limits in days; a kind that has none is kept for ever."""

    days: Mapping[Kept, int] = field(default_factory=dict)

    @property
    def limited(self) -> list[Kept]:
        """The kinds that have a limit."""
        return [kept for kept in Kept if self.days.get(kept)]

    def cutoff(
        self, kept: Kept, *, queued_since: datetime, dead_since: datetime | None
    ) -> datetime:
        """Return what rows of a limited kind must be older than to go.

        Age is not counted from now but from when the oldest document was accepted that is still
        queued. So whatever comes was accepted behind the limit, and finds what it would have found
        had it come at once.

        Args:
            kept: the kind.
            queued_since: when the oldest queued document was accepted; now when nothing waits.
            dead_since: the same of the oldest dead letter. Somebody may try it again: guards stay
                for it, all else does not.
        """
        counted_from = queued_since
        if kept in GUARDS and dead_since is not None:
            counted_from = min(queued_since, dead_since)
        return counted_from - timedelta(days=self.days[kept])
