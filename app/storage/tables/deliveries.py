"""Deliveries, and what they come to."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, Integer, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import JSON
from sqlmodel import Field, SQLModel

from app.storage.tables.columns import NOW, Timestamp


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
