"""Documents at their newest version, and what is left of deleted ones."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Double, Index, Integer, PrimaryKeyConstraint, Text, false, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from app.domain.documents import DocumentInput
from app.storage.tables.columns import NOW, Timestamp


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
