"""Leases: one process at a time delivers to a destination, and an old one cannot write."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to deliver to a destination, until it expires or is taken over.

    Attributes:
        epoch: fencing token; rises with every acquisition.
        lost_leases: how many holders in a row went silent before this one. From two on, something
            about this destination may be killing its holders.
    """

    tenant_id: int
    destination_id: uuid.UUID
    holder: str
    epoch: int
    lost_leases: int


def acquire(
    connection: Connection,
    tenant_id: int,
    destination_id: uuid.UUID,
    holder: str,
    ttl_seconds: float,
) -> Lease | None:
    """Take the lease if nobody has it or its holder went silent; None when it is held."""
    row = connection.execute(
        text(
            "INSERT INTO destination_runtime AS r"
            " (tenant_id, destination_id, epoch, holder, lease_expires_at)"
            " VALUES (:tenant_id, :destination_id, 1, :holder,"
            "  clock_timestamp() + make_interval(secs => :ttl))"
            " ON CONFLICT (tenant_id, destination_id) DO UPDATE SET"
            " epoch = r.epoch + 1, holder = :holder,"
            " lease_expires_at = clock_timestamp() + make_interval(secs => :ttl),"
            " lost_leases = CASE WHEN r.holder IS NULL THEN r.lost_leases"
            "  ELSE LEAST(r.lost_leases + 1, 1000) END"
            " WHERE r.holder IS NULL OR r.lease_expires_at < clock_timestamp()"
            " RETURNING epoch, lost_leases"
        ),
        {
            "tenant_id": tenant_id,
            "destination_id": destination_id,
            "holder": holder,
            "ttl": ttl_seconds,
        },
    ).one_or_none()
    if row is None:
        return None
    return Lease(
        tenant_id=tenant_id,
        destination_id=destination_id,
        holder=holder,
        epoch=row.epoch,
        lost_leases=row.lost_leases,
    )


def renew(connection: Connection, lease: Lease, ttl_seconds: float) -> bool:
    """Prolong the lease; False when another epoch has begun."""
    return (
        connection.execute(
            text(
                "UPDATE destination_runtime"
                " SET lease_expires_at = clock_timestamp() + make_interval(secs => :ttl)"
                " WHERE tenant_id = :tenant_id AND destination_id = :destination_id"
                " AND epoch = :epoch AND holder IS NOT NULL RETURNING 1"
            ),
            {**_key(lease), "ttl": ttl_seconds},
        ).one_or_none()
        is not None
    )


def release(connection: Connection, lease: Lease) -> None:
    """Let go in good order; whoever comes next starts without suspicion."""
    connection.execute(
        text(
            "UPDATE destination_runtime"
            " SET holder = NULL, lease_expires_at = NULL, lost_leases = 0"
            " WHERE tenant_id = :tenant_id AND destination_id = :destination_id"
            " AND epoch = :epoch"
        ),
        _key(lease),
    )


def is_current(connection: Connection, lease: Lease) -> bool:
    """Tell whether the lease's epoch still counts, and keep it so until the transaction ends."""
    epoch = connection.execute(
        text(
            "SELECT epoch FROM destination_runtime"
            " WHERE tenant_id = :tenant_id AND destination_id = :destination_id FOR SHARE"
        ),
        _key(lease),
    ).scalar_one_or_none()
    return epoch == lease.epoch


def _key(lease: Lease) -> dict[str, object]:
    return {
        "tenant_id": lease.tenant_id,
        "destination_id": lease.destination_id,
        "epoch": lease.epoch,
    }
