"""The installation's key pairs for signatures ``v1a``: one current, others until they expire."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, text

from app.domain.destinations import Destination
from app.domain.rotation import WebhookKey

_COLUMNS = "id, public_key, secret_key, created_at, expires_at"


def in_force(connection: Connection, tenant_id: int) -> list[WebhookKey]:
    """Return the keys that sign, the current one first and then the newest."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM webhook_keys WHERE tenant_id = :tenant_id"  # noqa: S608  (constants only)
            " AND (expires_at IS NULL OR expires_at > now())"
            " ORDER BY expires_at DESC NULLS FIRST, id DESC"
        ),
        {"tenant_id": tenant_id},
    )
    return [WebhookKey(**row._asdict()) for row in rows]


def insert(connection: Connection, tenant_id: int, key: WebhookKey) -> bool:
    """Insert a current key; False when there is one."""
    return (
        connection.execute(
            text(
                f"INSERT INTO webhook_keys (tenant_id, {_COLUMNS}) VALUES (:tenant_id, :id,"  # noqa: S608  (constants only)
                " :public_key, :secret_key, :created_at, NULL) ON CONFLICT DO NOTHING RETURNING 1"
            ),
            {
                "tenant_id": tenant_id,
                "id": key.id,
                "public_key": key.public_key,
                "secret_key": key.secret_key,
                "created_at": key.created_at,
            },
        ).one_or_none()
        is not None
    )


def retire(connection: Connection, tenant_id: int, overlap_seconds: int) -> None:
    """Let every key end so much later, or before if it does so anyway; drop those that have ended.

    Who rotates at the same time waits here.
    """
    values = {"tenant_id": tenant_id, "seconds": overlap_seconds}
    connection.execute(
        text(
            "UPDATE webhook_keys SET expires_at ="
            "  LEAST(expires_at, now() + make_interval(secs => :seconds))"
            " WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM webhook_keys"
            "  WHERE tenant_id = :tenant_id ORDER BY id FOR NO KEY UPDATE)"
        ),
        values,
    )
    connection.execute(
        text("DELETE FROM webhook_keys WHERE tenant_id = :tenant_id AND expires_at <= now()"),
        values,
    )


def with_keys(connection: Connection, destination: Destination | None) -> Destination | None:
    """Return a destination with the keys that sign for it, if it wants any."""
    if destination is None or "v1a" not in destination.signatures:
        return destination
    return replace(destination, webhook_keys=in_force(connection, destination.tenant_id))
