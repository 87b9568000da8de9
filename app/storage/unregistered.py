"""Destinations of URLs that nobody registered: children of the one whose key is ``default``.

Each URL is a destination of its own, so that one that hangs holds up no other; its secret,
signatures, timeout and body are those of the default destination. Headers and credentials are not:
they are meant for one receiver, and a router may take URLs from documents. Children take nothing by
themselves, are not listed and need no configuration: only a router leads to them.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from app.domain.destinations import Destination, DestinationInput, make_destination
from app.domain.errors import RouterFailed
from app.storage import destinations

DEFAULT_KEY = "default"
PLACEHOLDER_URL = "https://unregistered.invalid/"
"""Of a default destination that nobody made: it is disabled, and no such host can exist."""
MOST_URLS = 10_000
"""Each is looked at by every sweep."""


def ensure(
    connection: Connection,
    tenant_id: int,
    urls: Iterable[str],
    seal: Callable[[str], str] = str,
) -> dict[str, uuid.UUID]:
    """Return the destination of each URL, made at its first use; those disabled are left out.

    Args:
        connection: within the transaction that plans deliveries to them.
        tenant_id: whose.
        urls: normalised.
        seal: encrypts the secret of a default destination that nobody made.

    Raises:
        RouterFailed: there are too many different URLs.
    """
    by_key = {_key(url): url for url in urls}
    if not by_key:
        return {}
    found = _children(connection, tenant_id, list(by_key))
    missing = sorted(by_key.keys() - found.keys())
    if missing:
        parent = _default(connection, tenant_id, seal)
        _guard_number(connection, tenant_id, parent, len(missing))
        for key in missing:
            child = make_destination(
                tenant_id, DestinationInput(key=key, url=by_key[key]), now=datetime.now(UTC)
            )
            destinations.insert(
                connection,
                replace(
                    child,
                    parent_id=parent.id,
                    secret=parent.secret,
                    old_secrets=parent.old_secrets,
                    signatures=parent.signatures,
                    timeout_seconds=parent.timeout_seconds,
                    body=parent.body,
                ),
            )
        found = _children(connection, tenant_id, list(by_key))
    return {by_key[key]: child for key, (child, enabled) in found.items() if enabled}


def _key(url: str) -> str:
    return f"url:{hashlib.sha256(url.encode()).hexdigest()[:40]}"


def _children(
    connection: Connection, tenant_id: int, keys: list[str]
) -> dict[str, tuple[uuid.UUID, bool]]:
    rows = connection.execute(
        text(
            "SELECT key, id, enabled FROM destinations WHERE tenant_id = :tenant_id"
            " AND key = ANY(:keys) AND deleted_at IS NULL"
        ),
        {"tenant_id": tenant_id, "keys": keys},
    )
    return {row.key: (row.id, row.enabled) for row in rows}


def _default(connection: Connection, tenant_id: int, seal: Callable[[str], str]) -> Destination:
    found = destinations.get_by_key(connection, tenant_id, DEFAULT_KEY, lock=True)
    if found is None:
        given = DestinationInput(
            key=DEFAULT_KEY,
            url=PLACEHOLDER_URL,
            enabled=False,
            description="Signs what goes to URLs that nobody registered.",
        )
        made = make_destination(tenant_id, given, now=datetime.now(UTC))
        destinations.insert(connection, replace(made, secret=seal(made.secret)))
        # Ours, or that of who was quicker.
        found = destinations.get_by_key(connection, tenant_id, DEFAULT_KEY, lock=True)
        assert found is not None  # noqa: S101  (just inserted)
    return found


def _guard_number(connection: Connection, tenant_id: int, parent: Destination, more: int) -> None:
    known = connection.execute(
        text(
            "SELECT count(*) FROM destinations WHERE tenant_id = :tenant_id"
            " AND parent_id = :parent_id AND deleted_at IS NULL"
        ),
        {"tenant_id": tenant_id, "parent_id": parent.id},
    ).scalar_one()
    if known + more > MOST_URLS:
        raise RouterFailed(f"it named more than {MOST_URLS} different URLs; register destinations")
