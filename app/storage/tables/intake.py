"""What the ingest keeps beside documents: chunks that were applied, and what was set aside."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, SmallInteger, Text, false, text
from sqlmodel import Field, SQLModel

from app.storage.tables.columns import NOW, Timestamp


class Receipt(SQLModel, table=True):
    """A chunk: how often it was tried, and what became of it once it was applied.

    The row is made before the first try, so that a chunk which kills its process is counted;
    ``applied_at`` is set inside the ingest transaction, which makes a chunk count once. A message
    that became a dead letter has one too, under its own id, so that it is kept once.
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
    __table_args__: ClassVar[tuple[Any, ...]] = (
        Index("rejected_documents_document", "tenant_id", "document_id", "seq"),
    )

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
