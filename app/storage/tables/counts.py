"""Counts, and the places of those who work their way through tables."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Identity, Integer, Text
from sqlalchemy.dialects.postgresql import JSON
from sqlmodel import Field, SQLModel

from app.storage.tables.columns import NOW, Timestamp


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
