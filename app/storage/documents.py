"""Documents: the bulk upsert that lets only the newest version win, and reading one."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, case, func, literal_column, or_, text, tuple_
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql import select

from app.domain.documents import OrderKey
from app.domain.predictions import Prediction
from app.storage import counters, tallies
from app.storage.counters import Delta
from app.storage.tables.documents import Document, Tombstone
from app.storage.tallies import Owner

TABLE = Document.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table classes
TOMBSTONES = Tombstone.__table__  # type: ignore[attr-defined]  # likewise


@dataclass(slots=True, kw_only=True)
class IncomingDocument:
    """A classified document on its way into the table. None in a field: it was not sent.

    Attributes:
        created_at: when Redis took it; kept from the first version that is stored.
        updated_at: when Redis took the newest version.
        prediction: set once the chunk has been classified; None where there is no model.
    """

    tenant_id: int
    id: uuid.UUID
    version: int
    seq: int
    content: str
    topics: list[str] | None
    keys: list[str] | None
    delivery: str | None
    priority: int | None
    attributes: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    prediction: Prediction | None = None

    @property
    def order_key(self) -> OrderKey:
        """What decides whether this is the newer one."""
        return OrderKey(self.version, self.seq)

    def as_sent(self) -> bytes:
        """Return the document's JSON as it was accepted."""
        fields = {"id": self.id, "content": self.content, "version": self.version or None}
        fields |= {name: getattr(self, name) for name in OPTIONAL}
        return orjson.dumps({name: value for name, value in fields.items() if value is not None})


class Winner(NamedTuple):
    """A row that the upsert wrote; ``inserted`` is False where an older version stood."""

    id: uuid.UUID
    seq: int
    inserted: bool


COUNTED = 10_000
"""Documents up to which their number is exact."""
OPTIONAL = ("topics", "keys", "delivery", "priority", "attributes")
"""Fields that an update which does not send them leaves as they are."""

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's is not annotated
COLUMNS = tuple(
    name
    for name in TABLE.columns.keys()  # noqa: SIM118  (a ColumnCollection, not a dict)
)


def _make_upsert() -> Any:
    # Rows travel as one JSON text. As an array per column they cost five times as much here, where
    # psycopg escapes each element in Python, and no less in Postgres.
    described = ", ".join(f"{name} {TABLE.c[name].type.compile(DIALECT)}" for name in COLUMNS)
    rows: Any = (
        text(f"SELECT * FROM json_to_recordset(CAST(:documents AS json)) AS x ({described})")  # noqa: S608  (columns of ours)
        .columns(*(TABLE.c[name] for name in COLUMNS))
        .subquery("incoming")
    )
    deleted: Any = (
        select(literal_column("1"))
        .where(TOMBSTONES.c.tenant_id == rows.c.tenant_id)
        .where(TOMBSTONES.c.document_id == rows.c.id)
        .where(
            or_(
                tuple_(TOMBSTONES.c.version, TOMBSTONES.c.seq)
                >= tuple_(rows.c.version, rows.c.seq),
                rows.c.seq <= TOMBSTONES.c.purged_seq,
            )
        )
    )
    # Locks are taken in key order; without it four writers deadlocked in 103 of 240 statements.
    source = (
        select(*(rows.c[name] for name in COLUMNS))
        .where(~deleted.exists())
        .order_by(rows.c.tenant_id, rows.c.id)
    )
    statement = insert(TABLE).from_select(COLUMNS, source)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[TABLE.c.tenant_id, TABLE.c.id],
        set_={
            **{
                name: new[name]
                for name in COLUMNS
                if name not in {"tenant_id", "id", "created_at", *OPTIONAL}
            },
            **{name: func.coalesce(new[name], TABLE.c[name]) for name in OPTIONAL},
        },
        where=tuple_(TABLE.c.version, TABLE.c.seq) < tuple_(new.version, new.seq),
    ).returning(TABLE.c.id, TABLE.c.seq, case((literal_column("xmax") == 0, True), else_=False))


UPSERT = _make_upsert()


def upsert(connection: Connection, documents: Sequence[IncomingDocument]) -> list[Winner]:
    """Write the documents that are newer than what is stored; return those.

    Args:
        connection: within the ingest transaction.
        documents: each id at most once (Postgres refuses a second, SQLSTATE 21000).
    """
    if not documents:
        return []
    rows = orjson.dumps([_row(document) for document in documents]).decode()
    return [Winner(*row) for row in connection.execute(UPSERT, {"documents": rows})]


def _row(document: IncomingDocument) -> dict[str, Any]:
    prediction = document.prediction
    return {
        "tenant_id": document.tenant_id,
        "id": document.id,
        "version": document.version,
        "seq": document.seq,
        "content": document.content,
        "topics": document.topics,
        "keys": document.keys,
        "delivery": document.delivery,
        "priority": document.priority,
        "attributes": document.attributes,
        "category": prediction.category if prediction else None,
        "confidence": prediction.confidence if prediction else None,
        "model_version": prediction.model_version if prediction else None,
        "created_at": document.created_at,
        "updated_at": document.updated_at,
    }


def get(connection: Connection, tenant_id: int, document_id: uuid.UUID) -> Document | None:
    """Return the stored document, or None."""
    row = connection.execute(
        select(TABLE).where(TABLE.c.tenant_id == tenant_id, TABLE.c.id == document_id)
    ).one_or_none()
    return None if row is None else Document(**row._asdict())


def prediction_of(document: Document) -> Prediction | None:
    """Return what the model said of a stored document."""
    if document.category is None or document.confidence is None:
        return None
    return Prediction(document.category, document.confidence, document.model_version or "")


def count_estimate(connection: Connection) -> int:
    """Return how many documents are stored: exactly while there are few, then about, and cheaply.

    What the planner knows is as old as the last analysis; before the first one it is nothing.
    """
    counted, estimate = connection.execute(
        text(
            "SELECT (SELECT count(*) FROM (SELECT FROM documents LIMIT :most) few),"
            " reltuples::bigint FROM pg_class WHERE oid = 'documents'::regclass"
        ),
        {"most": COUNTED},
    ).one()
    return int(counted) if counted < COUNTED else max(COUNTED, int(estimate))


def delete(connection: Connection, tenant_id: int, document_id: uuid.UUID) -> bool:
    """Delete a document and leave a tombstone at its order key; False when there is none.

    The row is locked first, so that an upsert either waits for this transaction and then meets
    the tombstone (``bury``), or is seen by it.
    """
    key = {"tenant_id": tenant_id, "document_id": document_id}
    row = connection.execute(
        text(
            "SELECT version, seq FROM documents"
            " WHERE tenant_id = :tenant_id AND id = :document_id FOR UPDATE"
        ),
        key,
    ).one_or_none()
    if row is None:
        return False
    cancelled = connection.execute(
        text(
            "UPDATE deliveries SET state = 'cancelled', ended_at = now() WHERE"
            " (tenant_id, document_id, seq, destination_id, generation) IN ("
            "  SELECT tenant_id, document_id, seq, destination_id, generation FROM deliveries"
            "  WHERE tenant_id = :tenant_id AND document_id = :document_id"
            "  AND state IN ('pending', 'held')"
            "  ORDER BY seq, destination_id, generation FOR UPDATE)"
            " RETURNING destination_id, batch_id"
        ),
        key,
    )
    tallies.add(connection, tenant_id, [("cancelled", Counter(Owner(*row) for row in cancelled))])
    counters.add(connection, tenant_id, [Delta("documents.deleted", 1)])
    connection.execute(
        text(
            "INSERT INTO tombstones (tenant_id, document_id, version, seq)"
            " VALUES (:tenant_id, :document_id, :version, :seq)"
            " ON CONFLICT (tenant_id, document_id) DO UPDATE SET version = EXCLUDED.version,"
            " seq = EXCLUDED.seq, deleted_at = now()"
        ),
        {**key, "version": row.version, "seq": row.seq},
    )
    connection.execute(
        text("DELETE FROM documents WHERE tenant_id = :tenant_id AND id = :document_id"), key
    )
    return True


def bury(connection: Connection, tenant_id: int, ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Remove rows that a deletion overtook while the upsert waited for it; return their ids.

    A statement of its own: the upsert's snapshot is older than the tombstone it waited for.
    """
    rows = connection.execute(
        text(
            "DELETE FROM documents d USING tombstones t"
            " WHERE t.tenant_id = :tenant_id AND t.document_id = ANY(:ids)"
            " AND d.tenant_id = t.tenant_id AND d.id = t.document_id"
            " AND ((d.version, d.seq) <= (t.version, t.seq) OR d.seq <= t.purged_seq)"
            " RETURNING d.id"
        ),
        {"tenant_id": tenant_id, "ids": list(ids)},
    )
    return {row.id for row in rows}


def as_stored(
    connection: Connection, tenant_id: int, documents: Sequence[IncomingDocument]
) -> list[IncomingDocument]:
    """Return documents that have just been written with what their updates did not send.

    The rows are locked by this transaction. The given ones stay as they are: should it be
    repeated, they must not pass for having been sent with all their fields.
    """
    rows = connection.execute(
        select(TABLE.c.id, *(TABLE.c[name] for name in OPTIONAL)).where(
            TABLE.c.tenant_id == tenant_id, TABLE.c.id == func.any([one.id for one in documents])
        )
    )
    stored = {row.id: {name: getattr(row, name) for name in OPTIONAL} for row in rows}
    return [replace(one, **stored[one.id]) for one in documents]


class Floor(NamedTuple):
    """What a version of a document must lie above to be stored."""

    key: OrderKey
    purged_seq: int

    def lets_in(self, document: IncomingDocument) -> bool:
        """Tell whether a version would be stored."""
        return document.order_key > self.key and document.seq > self.purged_seq


def floors(
    connection: Connection, tenant_id: int, ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, Floor]:
    """Return the floors of those ids that are stored, or were deleted; locks nothing."""
    rows = connection.execute(
        text(
            "SELECT id, version, seq, 0 AS purged_seq FROM documents"
            " WHERE tenant_id = :tenant_id AND id = ANY(:ids)"
            " UNION ALL SELECT document_id, version, seq, COALESCE(purged_seq, 0) FROM tombstones"
            " WHERE tenant_id = :tenant_id AND document_id = ANY(:ids)"
        ),
        {"tenant_id": tenant_id, "ids": list(ids)},
    )
    found: dict[uuid.UUID, Floor] = {}
    for row in rows:
        one = Floor(OrderKey(row.version, row.seq), row.purged_seq)
        other = found.get(row.id, one)
        found[row.id] = Floor(max(one.key, other.key), max(one.purged_seq, other.purged_seq))
    return found
