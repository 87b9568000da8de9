"""The installation's key pairs: what receivers verify signatures ``v1a`` with."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, Engine

from app.domain.identifiers import new_id
from app.domain.rotation import WebhookKey
from app.domain.vault import Vault
from app.domain.webhook_keys import new_key_pair
from app.storage import webhook_keys
from app.storage.engine import transaction


def list_webhook_keys(engine: Engine, tenant_id: int, vault: Vault) -> list[WebhookKey]:
    """Return the keys that sign, the current one first; it is made when there is none."""
    with transaction(engine) as connection:
        return ensure_webhook_key(connection, tenant_id, vault)


def rotate_webhook_key(
    engine: Engine, tenant_id: int, vault: Vault, overlap_seconds: int
) -> list[WebhookKey]:
    """Begin a new key; the ones before it sign too until the overlap ends."""
    with transaction(engine) as connection:
        webhook_keys.retire(connection, tenant_id, overlap_seconds)
        return ensure_webhook_key(connection, tenant_id, vault)


def ensure_webhook_key(connection: Connection, tenant_id: int, vault: Vault) -> list[WebhookKey]:
    """Return the keys that sign, within a transaction; the current one is made if need be."""
    keys = webhook_keys.in_force(connection, tenant_id)
    if keys and keys[0].expires_at is None:
        return keys
    pair = new_key_pair()
    key = WebhookKey(
        id=new_id(),
        public_key=pair.public_key,
        secret_key=vault.seal_if_able(pair.secret_key),
        created_at=datetime.now(UTC),
        expires_at=None,
    )
    # Ours, or that of who was quicker.
    webhook_keys.insert(connection, tenant_id, key)
    return webhook_keys.in_force(connection, tenant_id)
