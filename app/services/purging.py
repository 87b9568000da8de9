"""Purging documents."""

from __future__ import annotations

import uuid

from sqlalchemy import Engine

from app.storage import purging
from app.storage.engine import transaction
from app.storage.purging import Purged


def purge_document(
    engine: Engine, tenant_id: int, document_id: uuid.UUID, accepted_until: int
) -> Purged:
    """Remove a document everywhere, in every version that was accepted up to an order number.

    Args:
        engine: the database.
        tenant_id: whose.
        document_id: stored, queued, set aside, deleted or unknown.
        accepted_until: the last order number given (``app.queue.oldest.last_accepted``); what is
            queued up to there will stay out.
    """
    with transaction(engine) as connection:
        return purging.purge(connection, tenant_id, document_id, accepted_until)
