"""What collectors returned: one row per delivered document that has a value, the first one kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from app.storage.deliveries import DeliveryResult

_STORE = text(
    "INSERT INTO delivery_results (tenant_id, document_id, seq, destination_id, generation, value)"
    " SELECT * FROM unnest(CAST(:tenants AS integer[]), CAST(:documents AS uuid[]),"
    "  CAST(:seqs AS bigint[]), CAST(:destinations AS uuid[]), CAST(:generations AS smallint[]),"
    "  CAST(:results AS json[])) ORDER BY 2, 3, 4, 5 ON CONFLICT DO NOTHING"
)


def store(connection: Connection, results: Sequence[DeliveryResult]) -> None:
    """Keep the values of deliveries, inside the transaction that ends them."""
    kept = [one for one in results if one.value is not None]
    if not kept:
        return
    connection.execute(
        _STORE,
        {
            "tenants": [one.key.tenant_id for one in kept],
            "documents": [one.key.document_id for one in kept],
            "seqs": [one.key.seq for one in kept],
            "destinations": [one.key.destination_id for one in kept],
            "generations": [one.key.generation for one in kept],
            "results": [one.value for one in kept],
        },
    )
