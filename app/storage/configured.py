"""Destinations as their holders see them: read again when the configuration has moved."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection

from app.domain.destinations import Destination
from app.storage import destinations, webhook_keys


class ConfiguredDestinations:
    """Keeps destinations for those that ask again and again; may be used from several threads.

    A holder asks with every page. The version row is a hundredth of the destination's, and nearly
    always says that nothing has changed.
    """

    def __init__(self) -> None:
        self._known: dict[uuid.UUID, tuple[int, Destination | None]] = {}

    def get(
        self, connection: Connection, tenant_id: int, destination_id: uuid.UUID
    ) -> Destination | None:
        """Return a destination with the keys that sign for it; None when it is deleted."""
        # First: what is changed between the two is read again next time.
        version = destinations.config_version(connection, tenant_id)
        known = self._known.get(destination_id)
        if known is not None and known[0] == version:
            return known[1]
        destination = destinations.get(connection, tenant_id, destination_id)
        if destination is not None and "v1a" in destination.signatures:
            # Webhook keys change without the configuration.
            return webhook_keys.with_keys(connection, destination)
        self._known[destination_id] = (version, destination)
        return destination

    def forget(self, destination_id: uuid.UUID) -> None:
        """Nobody holds it here any more."""
        self._known.pop(destination_id, None)
