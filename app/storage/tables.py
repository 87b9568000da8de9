"""The tables, as SQLModel classes. Every key begins with ``tenant_id``.

No foreign keys lead out of ``deliveries``: they cost 1.9 times the insert and turn a destination
that is deleted meanwhile into a failed chunk (design 2.2).
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    REAL,
    BigInteger,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    false,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlmodel import Field, SQLModel

from app.domain.documents import DocumentInput

Timestamp = DateTime(timezone=True)
NOW = text("now()")
NO_LIST = text("'[]'::jsonb")


class Document(SQLModel, DocumentInput, table=True):  # type: ignore[misc]  # two model configs
    """A document at its newest version. NULL in a field means: never sent."""

    __tablename__: ClassVar[str] = "documents"
    # Said by hand, because `id` comes first among the columns (it is inherited).
    __table_args__: ClassVar[tuple[Any, ...]] = (PrimaryKeyConstraint("tenant_id", "id"),)

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    id: uuid.UUID = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    seq: int = Field(sa_type=BigInteger)
    content: str = Field(sa_type=Text)
    topics: list[str] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    keys: list[str] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    delivery: str | None = Field(default=None, sa_type=Text)  # type: ignore[assignment]  # text
    priority: int | None = Field(default=None, sa_type=Integer)
    attributes: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    category: str | None = Field(default=None, sa_type=Text)
    confidence: float | None = Field(default=None, sa_type=Double)
    model_version: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(sa_type=Timestamp)
    updated_at: datetime = Field(sa_type=Timestamp)


class Tombstone(SQLModel, table=True):
    """What was deleted, and up to which order key; the upsert drops anything not newer.

    A purge besides keeps out whatever was accepted up to ``purged_seq``, of any version, and is
    repeated while ``purging`` (``app.storage.purging``).
    """

    __tablename__: ClassVar[str] = "tombstones"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        Index(
            "tombstones_purging",
            "tenant_id",
            "document_id",
            postgresql_where=text("purging"),
        ),
    )

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    document_id: uuid.UUID = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
    seq: int = Field(sa_type=BigInteger)
    deleted_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    purged_seq: int | None = Field(default=None, sa_type=BigInteger)
    purging: bool = Field(default=False, sa_column_kwargs={"server_default": false()})


class Receipt(SQLModel, table=True):
    """A chunk: how often it was tried, and what became of it once it was applied.

    The row is made before the first try, so that a chunk which kills its process is counted;
    ``applied_at`` is set inside the ingest transaction, which makes a chunk count once.
    """

    __tablename__: ClassVar[str] = "receipts"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    chunk_id: uuid.UUID = Field(primary_key=True)
    tries: int = Field(sa_type=Integer)
    created_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    applied_at: datetime | None = Field(default=None, sa_type=Timestamp)
    stored: int = Field(default=0, sa_type=Integer, sa_column_kwargs={"server_default": "0"})
    stale: int = Field(default=0, sa_type=Integer, sa_column_kwargs={"server_default": "0"})
    rejected: int = Field(default=0, sa_type=Integer, sa_column_kwargs={"server_default": "0"})
    planned: int = Field(default=0, sa_type=Integer, sa_column_kwargs={"server_default": "0"})
    # Its documents were rejected before, and leave their place there when it is applied.
    retry: bool = Field(default=False, sa_column_kwargs={"server_default": false()})


class RejectedDocument(SQLModel, table=True):
    """An accepted document that could not be stored, with its bytes and the reason.

    ``stage`` says where it failed: ``ingest``, ``classifier``, or ``router``. A document that could
    not be routed is stored.
    """

    __tablename__: ClassVar[str] = "rejected_documents"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    document_id: uuid.UUID | None = Field(default=None)
    chunk_id: uuid.UUID = Field()
    reason: str = Field(sa_type=Text)
    body: bytes = Field(sa_type=LargeBinary)
    rejected_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    stage: str = Field(
        default="ingest", sa_type=Text, sa_column_kwargs={"server_default": text("'ingest'")}
    )
    retried_at: datetime | None = Field(default=None, sa_type=Timestamp)


class UnplannedDocument(SQLModel, table=True):
    """A stored document that is not routed yet; ``error`` says why the last try failed.

    ``takes`` counts how often it was taken up since anybody last heard what came of it.
    """

    __tablename__: ClassVar[str] = "unplanned_documents"
    __table_args__: ClassVar[tuple[Any, ...]] = (Index("unplanned_due", "tenant_id", "retry_at"),)

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    document_id: uuid.UUID = Field(primary_key=True)
    seq: int = Field(sa_type=BigInteger)
    batch_id: uuid.UUID | None = Field(default=None)
    attempts: int = Field(default=0, sa_type=Integer, sa_column_kwargs={"server_default": "0"})
    error: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    retry_at: datetime = Field(sa_type=Timestamp)
    takes: int = Field(default=0, sa_type=SmallInteger, sa_column_kwargs={"server_default": "0"})


class DeadLetter(SQLModel, table=True):
    """A queue message that was given up, moved out of Redis."""

    __tablename__: ClassVar[str] = "dead_letters"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    message_id: str = Field(primary_key=True, sa_type=Text)
    queue: str = Field(sa_type=Text)
    body: bytes = Field(sa_type=LargeBinary)
    reason: str | None = Field(default=None, sa_type=Text)
    died_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    documents: int = Field(default=0, sa_type=Integer, sa_column_kwargs={"server_default": "0"})


class DestinationRow(SQLModel, table=True):
    """A destination's configuration. Deleting is soft: its deliveries keep their name."""

    __tablename__: ClassVar[str] = "destinations"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        Index(
            "destinations_key",
            "tenant_id",
            "key",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index(
            "destinations_parent",
            "tenant_id",
            "parent_id",
            postgresql_where=text("parent_id IS NOT NULL"),
        ),
    )

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    id: uuid.UUID = Field(primary_key=True)
    key: str = Field(sa_type=Text)
    kind: str = Field(
        default="webhook", sa_type=Text, sa_column_kwargs={"server_default": text("'webhook'")}
    )
    url: str = Field(sa_type=Text)
    description: str | None = Field(default=None, sa_type=Text)
    secret: str = Field(sa_type=Text)
    enabled: bool = Field()
    timeout_seconds: float = Field(sa_type=Double)
    min_concurrency: int = Field(sa_type=Integer, sa_column_kwargs={"server_default": text("1")})
    max_concurrency: int | None = Field(default=None, sa_type=Integer)
    max_per_second: float | None = Field(default=None, sa_type=Double)
    retry_schedule: list[float] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    max_age_seconds: float | None = Field(default=None, sa_type=Double)
    queue: str = Field(
        default="fifo", sa_type=Text, sa_column_kwargs={"server_default": text("'fifo'")}
    )
    ordered: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    batch: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    body: str = Field(
        default="envelope", sa_type=Text, sa_column_kwargs={"server_default": text("'envelope'")}
    )
    topics: list[str] = Field(sa_type=JSONB, sa_column_kwargs={"server_default": NO_LIST})
    categories: list[str] = Field(sa_type=JSONB, sa_column_kwargs={"server_default": NO_LIST})
    min_confidence: float | None = Field(default=None, sa_type=Double)
    uncertain: bool = Field(sa_column_kwargs={"server_default": false()})
    # As text: jsonb would turn 1e300 into an integer of 301 digits.
    filter: dict[str, Any] | None = Field(default=None, sa_type=JSON(none_as_null=True))
    events: list[str] = Field(sa_type=JSONB, sa_column_kwargs={"server_default": NO_LIST})
    documents: bool = Field(sa_column_kwargs={"server_default": true()})
    header_names: list[str] = Field(sa_type=JSONB, sa_column_kwargs={"server_default": NO_LIST})
    sealed_headers: str | None = Field(default=None, sa_type=Text)
    auth_type: str | None = Field(default=None, sa_type=Text)
    sealed_auth: str | None = Field(default=None, sa_type=Text)
    signatures: list[str] = Field(
        sa_type=JSONB, sa_column_kwargs={"server_default": text("'[\"v1\"]'::jsonb")}
    )
    old_secrets: list[dict[str, Any]] = Field(
        sa_type=JSONB, sa_column_kwargs={"server_default": NO_LIST}
    )
    parent_id: uuid.UUID | None = Field(default=None)
    created_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    updated_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    disabled_at: datetime | None = Field(default=None, sa_type=Timestamp)
    disabled_reason: str | None = Field(default=None, sa_type=Text)
    paused_at: datetime | None = Field(default=None, sa_type=Timestamp)
    deleted_at: datetime | None = Field(default=None, sa_type=Timestamp)


class WebhookKeyRow(SQLModel, table=True):
    """A key pair of the installation; the one that does not expire is the current one."""

    __tablename__: ClassVar[str] = "webhook_keys"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        Index(
            "webhook_keys_current",
            "tenant_id",
            unique=True,
            postgresql_where=text("expires_at IS NULL"),
        ),
    )

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    id: uuid.UUID = Field(primary_key=True)
    public_key: str = Field(sa_type=Text)
    secret_key: str = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    expires_at: datetime | None = Field(default=None, sa_type=Timestamp)


class ConfigVersion(SQLModel, table=True):
    """Rises with every change of configuration; read inside the ingest transaction."""

    __tablename__: ClassVar[str] = "config_versions"

    tenant_id: int = Field(
        primary_key=True, sa_type=Integer, sa_column_kwargs={"autoincrement": False}
    )
    version: int = Field(sa_type=BigInteger)


class DestinationRuntime(SQLModel, table=True):
    """Who delivers to a destination now. ``epoch`` is the fencing token of its lease."""

    __tablename__: ClassVar[str] = "destination_runtime"
    # Leases are renewed every few seconds: room on the page keeps these updates off the indexes.
    __table_args__: ClassVar[dict[str, Any]] = {"postgresql_with": {"fillfactor": 50}}

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    destination_id: uuid.UUID = Field(primary_key=True)
    epoch: int = Field(sa_type=BigInteger)
    holder: str | None = Field(default=None, sa_type=Text)
    lease_expires_at: datetime | None = Field(default=None, sa_type=Timestamp)
    lost_leases: int = Field(
        default=0, sa_type=SmallInteger, sa_column_kwargs={"server_default": "0"}
    )
    # What the holder found out, for the API and for the next holder.
    concurrency_limit: int | None = Field(default=None, sa_type=Integer)
    concurrency_reason: str | None = Field(default=None, sa_type=Text)
    concurrency_memory: dict[str, Any] | None = Field(
        default=None, sa_type=JSONB(none_as_null=True)
    )
    rate_paid_at: datetime | None = Field(default=None, sa_type=Timestamp)
    failing_since: datetime | None = Field(default=None, sa_type=Timestamp)
    failures: int = Field(
        default=0, sa_type=Integer, sa_column_kwargs={"server_default": text("0")}
    )
    last_error: str | None = Field(default=None, sa_type=Text)
    failing_told: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    # Why nothing can be sent, and until when nobody need try: a key that is missing, for example.
    blocked_reason: str | None = Field(default=None, sa_type=Text)
    blocked_until: datetime | None = Field(default=None, sa_type=Timestamp)


class Delivery(SQLModel, table=True):
    """One document version for one destination: the outbox, and the record of what became of it.

    The first two indexes are the two ways in which a holder reads: deliveries never tried, in the
    order of acceptance, and retries by the time they are due. The others are for people
    (``app.storage.delivery_search``). With an ``event_type`` the row is of an operational event,
    whose id stands in place of a document's.
    """

    __tablename__: ClassVar[str] = "deliveries"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        Index(
            "deliveries_fresh",
            "tenant_id",
            "destination_id",
            "rank",
            "seq",
            postgresql_where=text("state = 'pending' AND attempts = 0"),
        ),
        Index(
            "deliveries_retry",
            "tenant_id",
            "destination_id",
            "due_at",
            postgresql_where=text("state = 'pending' AND attempts > 0"),
        ),
        Index(
            "deliveries_held",
            "tenant_id",
            "destination_id",
            "seq",
            postgresql_where=text("state = 'held'"),
        ),
        Index("deliveries_accepted", "tenant_id", "seq", "destination_id"),
        Index(
            "deliveries_undelivered",
            "tenant_id",
            "state",
            "seq",
            "destination_id",
            postgresql_where=text("state IN ('pending', 'held', 'failed')"),
        ),
        Index(
            "deliveries_batch",
            "tenant_id",
            "batch_id",
            "seq",
            postgresql_where=text("batch_id IS NOT NULL"),
        ),
    )

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    document_id: uuid.UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    destination_id: uuid.UUID = Field(primary_key=True)
    generation: int = Field(
        default=0, primary_key=True, sa_type=SmallInteger, sa_column_kwargs={"server_default": "0"}
    )
    version: int = Field(sa_type=BigInteger)
    state: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    rank: int = Field(default=0, sa_type=Integer, sa_column_kwargs={"server_default": text("0")})
    attempts: int = Field(default=0, sa_type=SmallInteger, sa_column_kwargs={"server_default": "0"})
    due_at: datetime = Field(sa_type=Timestamp)
    created_at: datetime = Field(sa_type=Timestamp)
    resumed_at: datetime | None = Field(default=None, sa_type=Timestamp)
    attempted_at: datetime | None = Field(default=None, sa_type=Timestamp)
    ended_at: datetime | None = Field(default=None, sa_type=Timestamp)
    last_status: int | None = Field(default=None, sa_type=SmallInteger)
    last_error: str | None = Field(default=None, sa_type=Text)
    batch_id: uuid.UUID | None = Field(default=None)
    event_type: str | None = Field(default=None, sa_type=Text)


class Replay(SQLModel, table=True):
    """Ended deliveries that are planned anew, by a filter, piece by piece.

    ``cursor`` is the id of the delivery behind which the next piece begins.
    """

    __tablename__: ClassVar[str] = "replays"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        Index(
            "replays_unfinished",
            "tenant_id",
            "id",
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    id: uuid.UUID = Field(primary_key=True)
    filter: dict[str, Any] = Field(sa_type=JSON)
    cursor: str | None = Field(default=None, sa_type=Text)
    planned: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    skipped: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
    created_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    finished_at: datetime | None = Field(default=None, sa_type=Timestamp)


class AttemptRow(SQLModel, table=True):
    """One attempt at a delivery. A partition per day, which retention drops whole.

    The time is part of the key: an attempt whose result was lost is made again under its number.
    ``app.storage.attempt_days`` makes the partitions; the default one takes what fits none.
    """

    __tablename__: ClassVar[str] = "attempts"
    __table_args__: ClassVar[dict[str, Any]] = {"postgresql_partition_by": "RANGE (started_at)"}

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    document_id: uuid.UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    destination_id: uuid.UUID = Field(primary_key=True)
    generation: int = Field(primary_key=True, sa_type=SmallInteger)
    number: int = Field(primary_key=True, sa_type=SmallInteger)
    started_at: datetime = Field(primary_key=True, sa_type=Timestamp)
    kind: str = Field(sa_type=Text)
    status: int | None = Field(default=None, sa_type=SmallInteger)
    error: str | None = Field(default=None, sa_type=Text)
    reused: bool | None = Field(default=None)
    name_ms: float | None = Field(default=None, sa_type=REAL)
    connect_ms: float | None = Field(default=None, sa_type=REAL)
    tls_ms: float | None = Field(default=None, sa_type=REAL)
    wait_ms: float | None = Field(default=None, sa_type=REAL)
    rest_ms: float | None = Field(default=None, sa_type=REAL)
    total_ms: float | None = Field(default=None, sa_type=REAL)
    headers: dict[str, str] | None = Field(default=None, sa_type=JSON(none_as_null=True))
    body: str | None = Field(default=None, sa_type=Text)


class OperationalEvent(SQLModel, table=True):
    """What Docyard tells about its own work; its deliveries have its id as ``document_id``."""

    __tablename__: ClassVar[str] = "operational_events"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    id: uuid.UUID = Field(primary_key=True)
    type: str = Field(sa_type=Text)
    destination_id: uuid.UUID = Field()
    data: dict[str, Any] = Field(sa_type=JSON)
    created_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})


class DeliveryValue(SQLModel, table=True):
    """What a collector returned for a delivery."""

    __tablename__: ClassVar[str] = "delivery_results"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    document_id: uuid.UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    destination_id: uuid.UUID = Field(primary_key=True)
    generation: int = Field(primary_key=True, sa_type=SmallInteger)
    value: Any = Field(sa_type=JSON)


class DeliveryStep(SQLModel, table=True):
    """A call that a collector made while it worked on a delivery, and what came of it."""

    __tablename__: ClassVar[str] = "delivery_steps"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        Index("delivery_steps_child", "tenant_id", "child_document_id"),
    )

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    document_id: uuid.UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=BigInteger)
    destination_id: uuid.UUID = Field(primary_key=True)
    generation: int = Field(primary_key=True, sa_type=SmallInteger)
    number: int = Field(primary_key=True, sa_type=Integer)
    key: str = Field(sa_type=Text)
    child_document_id: uuid.UUID = Field()
    child_seq: int = Field(sa_type=BigInteger)
    child_destination_id: uuid.UUID = Field()
    state: str = Field(sa_type=Text)
    value: Any = Field(default=None, sa_type=JSON(none_as_null=True), nullable=True)
    error: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    ended_at: datetime | None = Field(default=None, sa_type=Timestamp)


class CollectorCarrier(SQLModel, table=True):
    """A worker process that carries a collector, until ``expires_at`` unless it says so again."""

    __tablename__: ClassVar[str] = "collector_carriers"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    destination_id: uuid.UUID = Field(primary_key=True)
    process: str = Field(primary_key=True, sa_type=Text)
    expires_at: datetime = Field(sa_type=Timestamp)


class CounterDelta(SQLModel, table=True):
    """An addition to a counter; insert-only, so that writers never wait for each other."""

    __tablename__: ClassVar[str] = "counter_deltas"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    id: int | None = Field(
        default=None, primary_key=True, sa_type=BigInteger, sa_column_args=[Identity(always=True)]
    )
    name: str = Field(sa_type=Text)
    destination_id: uuid.UUID | None = Field(default=None)
    amount: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})


class Counter(SQLModel, table=True):
    """Folded counters, by hour; ``destination_id`` is the nil UUID where none is meant."""

    __tablename__: ClassVar[str] = "counters"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    name: str = Field(primary_key=True, sa_type=Text)
    destination_id: uuid.UUID = Field(primary_key=True)
    hour: datetime = Field(primary_key=True, sa_type=Timestamp)
    amount: int = Field(sa_type=BigInteger)


class AcceptedMark(SQLModel, table=True):
    """How many documents a lane of Redis had ever taken when that was last written down."""

    __tablename__: ClassVar[str] = "accepted_marks"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    lane: str = Field(primary_key=True, sa_type=Text)
    accepted: int = Field(sa_type=BigInteger)
    noted_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})


class BatchDelta(SQLModel, table=True):
    """An addition to what is counted of a batch; insert-only, as the counters' are."""

    __tablename__: ClassVar[str] = "batch_deltas"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    id: int | None = Field(
        default=None, primary_key=True, sa_type=BigInteger, sa_column_args=[Identity(always=True)]
    )
    batch_id: uuid.UUID = Field()
    name: str = Field(sa_type=Text)
    amount: int = Field(sa_type=BigInteger)


class BatchCount(SQLModel, table=True):
    """What became of a batch, folded: so many stored, delivered and so on."""

    __tablename__: ClassVar[str] = "batch_counts"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    batch_id: uuid.UUID = Field(primary_key=True)
    name: str = Field(primary_key=True, sa_type=Text)
    amount: int = Field(sa_type=BigInteger)


class Tick(SQLModel, table=True):
    """Periodic work: whoever moves ``next_at`` does it."""

    __tablename__: ClassVar[str] = "ticks"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    name: str = Field(primary_key=True, sa_type=Text)
    next_at: datetime = Field(sa_type=Timestamp)


class RetentionWalk(SQLModel, table=True):
    """How far retention is with one kind of row; ``cursor`` is behind the last one looked at.

    NULL: a round begins. ``removed`` counts the rows of all rounds.
    """

    __tablename__: ClassVar[str] = "retention_walks"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    name: str = Field(primary_key=True, sa_type=Text)
    cursor: list[Any] | None = Field(default=None, sa_type=JSON(none_as_null=True))
    next_at: datetime = Field(sa_type=Timestamp, sa_column_kwargs={"server_default": NOW})
    finished_at: datetime | None = Field(default=None, sa_type=Timestamp)
    removed: int = Field(default=0, sa_type=BigInteger, sa_column_kwargs={"server_default": "0"})
