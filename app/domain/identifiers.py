"""Identifiers that sort by time of creation."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import uuid_utils


def new_id() -> uuid.UUID:
    """Return a UUIDv7 (RFC 9562): unique, and ordered by its millisecond of creation."""
    return uuid.UUID(int=uuid_utils.uuid7().int)


def id_made_at(milliseconds: int) -> uuid.UUID:
    """Return a new UUIDv7 that says it was made at some time, in milliseconds since 1970."""
    return uuid.UUID(int=uuid_utils.uuid7(nanoseconds=milliseconds * 1_000_000).int)


def first_id_of(at: datetime) -> uuid.UUID:
    """Return the bound below which every UUIDv7 is that was made before some time."""
    return uuid.UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def made_at(identifier: uuid.UUID) -> datetime | None:
    """Return when a UUIDv7 was made, None for an id of another kind."""
    if identifier.version != 7:  # noqa: PLR2004  (the version of RFC 9562 that has a time first)
        return None
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, UTC)
