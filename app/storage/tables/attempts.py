"""Attempts at deliveries, in a partition for each day."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import REAL, BigInteger, Integer, SmallInteger, Text
from sqlalchemy.dialects.postgresql import JSON
from sqlmodel import Field, SQLModel

from app.storage.tables.columns import Timestamp


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
