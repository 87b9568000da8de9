"""Destinations: how they are configured, and how they do."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Double, Index, Integer, SmallInteger, Text, false, text, true
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlmodel import Field, SQLModel

from app.storage.tables.columns import NO_LIST, NOW, Timestamp


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


class CollectorCarrier(SQLModel, table=True):
    """A worker process that carries a collector, until ``expires_at`` unless it says so again."""

    __tablename__: ClassVar[str] = "collector_carriers"

    tenant_id: int = Field(primary_key=True, sa_type=Integer)
    destination_id: uuid.UUID = Field(primary_key=True)
    process: str = Field(primary_key=True, sa_type=Text)
    expires_at: datetime = Field(sa_type=Timestamp)
