"""Identifiers that sort by time of creation."""

import uuid

import uuid_utils


def new_id() -> uuid.UUID:
    """Return a UUIDv7 (RFC 9562): unique, and ordered by its millisecond of creation."""
    return uuid.UUID(int=uuid_utils.uuid7().int)
