"""Reading and deleting documents."""

from __future__ import annotations

import uuid

from sqlalchemy import Engine

from app.domain.errors import DocumentNotFound
from app.storage import documents
from app.storage.engine import transaction
from app.storage.tables.documents import Document


def get_document(engine: Engine, tenant_id: int, document_id: uuid.UUID) -> Document:
    """Return a stored document.

    Raises:
        DocumentNotFound: it may still be queued.
    """
    with transaction(engine) as connection:
        document = documents.get(connection, tenant_id, document_id)
    if document is None:
        raise DocumentNotFound(document_id)
    return document


def delete_document(engine: Engine, tenant_id: int, document_id: uuid.UUID) -> None:
    """Delete a document; older copies of it that are still queued stay out.

    Raises:
        DocumentNotFound: nothing was deleted.
    """
    with transaction(engine) as connection:
        deleted = documents.delete(connection, tenant_id, document_id)
    if not deleted:
        raise DocumentNotFound(document_id)
