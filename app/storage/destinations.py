"""Destinations: configuration, read through a version row."""

from __future__ import annotations

import uuid
from typing import Any

import orjson
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from app.domain.destinations import Destination
from app.domain.errors import DestinationKeyTaken
from app.domain.routing import RoutingTable

COLUMNS = (
    "tenant_id, id, key, kind, url, description, secret, enabled, timeout_seconds,"
    " min_concurrency, max_concurrency, max_per_second, retry_schedule, max_age_seconds,"
    " queue, ordered, batch, body,"
    " topics, categories, min_confidence, uncertain, filter, events, documents,"
    " header_names, sealed_headers, auth_type, sealed_auth, signatures, old_secrets, parent_id,"
    " created_at, updated_at, disabled_at, disabled_reason, paused_at"
)

_NAMES = tuple(name.strip() for name in COLUMNS.split(","))
_JSON_TYPES = {
    "topics": "jsonb",
    "categories": "jsonb",
    "filter": "json",
    "events": "jsonb",
    "retry_schedule": "jsonb",
    "header_names": "jsonb",
    "signatures": "jsonb",
    "old_secrets": "jsonb",
    "batch": "jsonb",
}
_PARAMETERS = ", ".join(
    f"CAST(:{name} AS {_JSON_TYPES[name]})" if name in _JSON_TYPES else f":{name}"
    for name in _NAMES
)


def create(connection: Connection, destination: Destination) -> None:
    """Insert a destination.

    Raises:
        DestinationKeyTaken: another one has this key.
    """
    try:
        connection.execute(
            text(f"INSERT INTO destinations ({COLUMNS}) VALUES ({_PARAMETERS})"),  # noqa: S608  (constants only)
            _parameters(destination),
        )
    except IntegrityError as error:
        raise DestinationKeyTaken(destination.key) from error
    _bump(connection, destination.tenant_id)


def insert(connection: Connection, destination: Destination) -> None:
    """Insert a destination that takes nothing by itself, unless its key is taken."""
    connection.execute(
        text(
            f"INSERT INTO destinations ({COLUMNS}) VALUES ({_PARAMETERS}) ON CONFLICT DO NOTHING"  # noqa: S608  (constants only)
        ),
        _parameters(destination),
    )


def update(connection: Connection, destination: Destination) -> None:
    """Write a destination's fields over those of its row, which ``get`` has locked.

    Its children (``app.storage.unregistered``) follow.

    Raises:
        DestinationKeyTaken: another one has this key.
    """
    try:
        connection.execute(
            text(
                f"UPDATE destinations SET ({COLUMNS}) = ({_PARAMETERS})"  # noqa: S608  (constants only)
                " WHERE tenant_id = :tenant_id AND id = :id"
            ),
            _parameters(destination),
        )
    except IntegrityError as error:
        raise DestinationKeyTaken(destination.key) from error
    connection.execute(
        text(
            "UPDATE destinations SET secret = :secret, timeout_seconds = :timeout_seconds,"
            " signatures = CAST(:signatures AS jsonb), old_secrets = CAST(:old_secrets AS jsonb),"
            " body = :body, updated_at = :updated_at WHERE (tenant_id, id) IN ("
            "  SELECT tenant_id, id FROM destinations WHERE tenant_id = :tenant_id"
            "  AND parent_id = :id ORDER BY id FOR NO KEY UPDATE)"
        ),
        _parameters(destination),
    )
    _bump(connection, destination.tenant_id)


def get(
    connection: Connection, tenant_id: int, destination_id: uuid.UUID, *, lock: bool = False
) -> Destination | None:
    """Return a destination that is not deleted, or None; ``lock`` it to change it."""
    row = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM destinations WHERE tenant_id = :tenant_id"  # noqa: S608  (constants only)
            f" AND id = :id AND deleted_at IS NULL {'FOR NO KEY UPDATE' if lock else ''}"
        ),
        {"tenant_id": tenant_id, "id": destination_id},
    ).one_or_none()
    return None if row is None else Destination(**row._asdict())


def get_by_key(
    connection: Connection, tenant_id: int, key: str, *, lock: bool = False
) -> Destination | None:
    """Return the destination of a key, or None; ``lock`` it to change it."""
    row = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM destinations WHERE tenant_id = :tenant_id"  # noqa: S608  (constants only)
            f" AND key = :key AND deleted_at IS NULL {'FOR NO KEY UPDATE' if lock else ''}"
        ),
        {"tenant_id": tenant_id, "key": key},
    ).one_or_none()
    return None if row is None else Destination(**row._asdict())


def list_page(
    connection: Connection,
    tenant_id: int,
    *,
    limit: int,
    after: uuid.UUID | None = None,
    parent_id: uuid.UUID | None = None,
) -> list[Destination]:
    """Return destinations in the order of their ids, from behind ``after``.

    Only those with the given parent: by default those that somebody registered.
    """
    rows = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM destinations WHERE tenant_id = :tenant_id"  # noqa: S608  (constants only)
            " AND deleted_at IS NULL AND (CAST(:after AS uuid) IS NULL OR id > :after)"
            " AND parent_id IS NOT DISTINCT FROM CAST(:parent_id AS uuid)"
            " ORDER BY id LIMIT :limit"
        ),
        {"tenant_id": tenant_id, "after": after, "limit": limit, "parent_id": parent_id},
    )
    return [Destination(**row._asdict()) for row in rows]


def list_all(connection: Connection, tenant_id: int) -> list[Destination]:
    """Return every destination that somebody registered, in the order of their ids."""
    rows = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM destinations WHERE tenant_id = :tenant_id"  # noqa: S608  (constants only)
            " AND deleted_at IS NULL AND parent_id IS NULL ORDER BY id"
        ),
        {"tenant_id": tenant_id},
    )
    return [Destination(**row._asdict()) for row in rows]


def soft_delete(connection: Connection, tenant_id: int, destination_id: uuid.UUID) -> bool:
    """Delete a destination and cancel its open deliveries; False when there is none.

    Its credentials are forgotten at once.
    Its children (``app.storage.unregistered``) go with it.
    A chunk that is being planned meanwhile may still add deliveries; the sweeper cancels those.
    """
    found = connection.execute(
        text(
            "UPDATE destinations SET deleted_at = now(), updated_at = now(), enabled = false,"
            " sealed_headers = NULL, sealed_auth = NULL"
            " WHERE tenant_id = :tenant_id AND id = :id AND deleted_at IS NULL RETURNING 1"
        ),
        {"tenant_id": tenant_id, "id": destination_id},
    ).one_or_none()
    if found is None:
        return False
    connection.execute(
        text(
            "UPDATE destinations SET deleted_at = now(), updated_at = now(), enabled = false"
            " WHERE tenant_id = :tenant_id AND parent_id = :id AND deleted_at IS NULL"
        ),
        {"tenant_id": tenant_id, "id": destination_id},
    )
    _bump(connection, tenant_id)
    return True


def disable(connection: Connection, tenant_id: int, destination_id: uuid.UUID, reason: str) -> bool:
    """Stop delivering to a destination because of what it answered; its deliveries wait.

    Returns:
        False where it was disabled already.
    """
    changed = connection.execute(
        text(
            "UPDATE destinations SET enabled = false, disabled_at = now(),"
            " disabled_reason = :reason, updated_at = now()"
            " WHERE tenant_id = :tenant_id AND id = :id AND enabled RETURNING 1"
        ),
        {"tenant_id": tenant_id, "id": destination_id, "reason": reason},
    ).one_or_none()
    if changed is None:
        return False
    _bump(connection, tenant_id)
    return True


def config_version(connection: Connection, tenant_id: int) -> int:
    """Return the version of the tenant's configuration; 0 before the first change."""
    version = connection.execute(
        text("SELECT version FROM config_versions WHERE tenant_id = :tenant_id"),
        {"tenant_id": tenant_id},
    ).scalar_one_or_none()
    return version or 0


class DestinationCache:
    """The enabled destinations of a tenant, compiled again when the version row has moved.

    Asked inside the ingest transaction, so that a document POSTed after ``POST /destinations``
    answered reaches the new destination (design 2.2).
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, RoutingTable]] = {}

    def table(self, connection: Connection, tenant_id: int) -> RoutingTable:
        """Return the destinations that take new documents, in the order of their ids."""
        version = config_version(connection, tenant_id)
        known = self._known.get(tenant_id)
        if known is not None and known[0] == version:
            return known[1]
        rows = connection.execute(
            text(
                f"SELECT {COLUMNS} FROM destinations WHERE tenant_id = :tenant_id"  # noqa: S608  (constants only)
                " AND deleted_at IS NULL AND enabled AND documents AND parent_id IS NULL"
                " ORDER BY id"
            ),
            {"tenant_id": tenant_id},
        )
        table = RoutingTable(Destination(**row._asdict()) for row in rows)
        self._known[tenant_id] = (version, table)
        return table


def _parameters(destination: Destination) -> dict[str, Any]:
    """Return a destination's fields as parameters; JSON as text."""
    fields: dict[str, Any] = {name: getattr(destination, name) for name in _NAMES}
    for name in _JSON_TYPES:
        if fields[name] is not None:
            fields[name] = orjson.dumps(fields[name]).decode()
    return fields


def _bump(connection: Connection, tenant_id: int) -> None:
    values: dict[str, Any] = {"tenant_id": tenant_id}
    connection.execute(
        text(
            "INSERT INTO config_versions AS c (tenant_id, version) VALUES (:tenant_id, 1)"
            " ON CONFLICT (tenant_id) DO UPDATE SET version = c.version + 1"
        ),
        values,
    )


def count(connection: Connection, tenant_id: int) -> int:
    """Return how many destinations there are that are not deleted."""
    return int(
        connection.execute(
            text(
                "SELECT count(*) FROM destinations"
                " WHERE tenant_id = :tenant_id AND deleted_at IS NULL AND parent_id IS NULL"
            ),
            {"tenant_id": tenant_id},
        ).scalar_one()
    )
