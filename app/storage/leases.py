"""Leases: one process at a time delivers to a destination, and an old one cannot write.

With the lease goes what its holder found out about the destination's concurrency and rate.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import Connection, Row, text

from app.domain.adaptive import Memory
from app.domain.health import FINE, Health, Runtime
from app.domain.throttle import ThrottleState

SUSPECT_FROM_LOST_LEASES = 2

_THROTTLE = (
    ", concurrency_limit = :limit, concurrency_reason = :reason,"
    " concurrency_memory = CAST(:memory AS jsonb),"
    # By the database's clock: the next holder may live on another machine.
    " rate_paid_at = clock_timestamp() + make_interval(secs => :debt)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to deliver to a destination, until it expires or is taken over.

    Attributes:
        epoch: fencing token; rises with every acquisition.
        acquired_at: by the database's clock.
        lost_leases: how many holders in a row went silent before this one. From two on, something
            about this destination may be killing its holders.
        throttle: what the last holder left, None when there was none.
        health: likewise.
        blocked_reason: why the last holder could not send, None when it could.
    """

    tenant_id: int
    destination_id: uuid.UUID
    holder: str
    epoch: int
    lost_leases: int
    acquired_at: datetime
    throttle: ThrottleState | None = None
    health: Health = FINE
    blocked_reason: str | None = None

    @property
    def is_suspect(self) -> bool:
        """Whether the destination may be killing its holders.

        Then it is sent one request at a time, and each is counted before it is made.
        """
        return self.lost_leases >= SUSPECT_FROM_LOST_LEASES


class Renewed(NamedTuple):
    """What a lease's row says behind its renewal.

    Attributes:
        at: when that was, by the database's clock.
        failing_since: as noted; None when nothing was, or when it was forgotten.
    """

    at: datetime
    failing_since: datetime | None


def acquire(
    connection: Connection,
    tenant_id: int,
    destination_id: uuid.UUID,
    holder: str,
    ttl_seconds: float,
) -> Lease | None:
    """Take the lease if nobody has it or its holder went silent; None otherwise."""
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
            " WHERE (r.holder IS NULL OR r.lease_expires_at < clock_timestamp())"
            " AND (r.blocked_until IS NULL OR r.blocked_until < clock_timestamp())"
            " RETURNING clock_timestamp() AS acquired_at, epoch, lost_leases, blocked_reason,"
            " concurrency_limit, concurrency_reason, concurrency_memory,"
            " failing_since, failures, last_error, failing_told,"
            " EXTRACT(EPOCH FROM rate_paid_at - clock_timestamp())::float8 AS debt"
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
        acquired_at=row.acquired_at,
        throttle=_throttle(row),
        health=health_of(row),
        blocked_reason=row.blocked_reason,
    )


def renew(
    connection: Connection,
    lease: Lease,
    ttl_seconds: float,
    throttle: ThrottleState | None = None,
) -> Renewed | None:
    """Prolong the lease; None when another epoch has begun.

    Args:
        connection: in a transaction.
        lease: to prolong.
        ttl_seconds: from now.
        throttle: what was found out, None to leave it as it was.
    """
    row = connection.execute(
        text(
            "UPDATE destination_runtime"  # noqa: S608  (constants only)
            " SET lease_expires_at = clock_timestamp() + make_interval(secs => :ttl)"
            f"{_THROTTLE if throttle else ''}"
            " WHERE tenant_id = :tenant_id AND destination_id = :destination_id"
            " AND epoch = :epoch AND holder IS NOT NULL"
            " RETURNING clock_timestamp(), failing_since"
        ),
        {**_key(lease), "ttl": ttl_seconds, **_values(throttle)},
    ).one_or_none()
    return None if row is None else Renewed(*row)


def release(connection: Connection, lease: Lease, throttle: ThrottleState | None = None) -> None:
    """Let go in good order; whoever comes next starts without suspicion.

    Args:
        connection: in a transaction.
        lease: that ends.
        throttle: what was found out, None to leave it as it was.
    """
    connection.execute(
        text(
            "UPDATE destination_runtime"  # noqa: S608  (constants only)
            " SET holder = NULL, lease_expires_at = NULL, lost_leases = 0"
            f"{_THROTTLE if throttle else ''}"
            " WHERE tenant_id = :tenant_id AND destination_id = :destination_id"
            " AND epoch = :epoch"
        ),
        {**_key(lease), **_values(throttle)},
    )


def runtimes(
    connection: Connection, tenant_id: int, destination_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, Runtime]:
    """Return how destinations do, those that were ever delivered to."""
    rows = connection.execute(
        text(
            "SELECT destination_id, concurrency_limit, concurrency_reason,"
            " failing_since, failures, last_error, failing_told"
            " FROM destination_runtime WHERE tenant_id = :tenant_id AND destination_id = ANY(:ids)"
        ),
        {"tenant_id": tenant_id, "ids": list(destination_ids)},
    )
    return {
        row.destination_id: Runtime(row.concurrency_limit, row.concurrency_reason, health_of(row))
        for row in rows
    }


def block(connection: Connection, lease: Lease, reason: str | None, seconds: float) -> None:
    """Note why nothing can be sent, so that nobody tries again for a while; None ends that."""
    connection.execute(
        text(
            "UPDATE destination_runtime SET blocked_reason = :reason,"
            " blocked_until = CASE WHEN CAST(:reason AS text) IS NULL THEN NULL"
            "  ELSE clock_timestamp() + make_interval(secs => :seconds) END"
            " WHERE tenant_id = :tenant_id AND destination_id = :destination_id"
            " AND epoch = :epoch"
        ),
        {**_key(lease), "reason": reason, "seconds": seconds},
    )


def blocked_reasons(
    connection: Connection, tenant_id: int, destination_ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, str]:
    """Return why nothing can be sent to a destination, for those to which it cannot."""
    rows = connection.execute(
        text(
            "SELECT destination_id, blocked_reason FROM destination_runtime"
            " WHERE tenant_id = :tenant_id AND destination_id = ANY(:ids)"
            " AND blocked_reason IS NOT NULL"
        ),
        {"tenant_id": tenant_id, "ids": list(destination_ids)},
    )
    return {row.destination_id: row.blocked_reason for row in rows}


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


def health_of(row: Row[Any]) -> Health:
    """Return the health that stands in a row of ``destination_runtime``."""
    return Health(
        failing_since=row.failing_since,
        failures=row.failures,
        last_error=row.last_error,
        told=row.failing_told,
    )


def _throttle(row: Row[Any]) -> ThrottleState | None:
    if row.concurrency_limit is None:
        return None
    try:
        memory = Memory.model_validate(row.concurrency_memory)
    except ValidationError:
        memory = None  # Of another version: it is soon found out again.
    return ThrottleState(
        limit=row.concurrency_limit,
        reason=row.concurrency_reason,
        memory=memory,
        debt_seconds=max(0.0, row.debt or 0.0),
    )


def _values(throttle: ThrottleState | None) -> dict[str, object]:
    if throttle is None:
        return {}
    return {
        "limit": throttle.limit,
        "reason": throttle.reason,
        "memory": throttle.memory.model_dump_json() if throttle.memory else None,
        "debt": throttle.debt_seconds,
    }


def _key(lease: Lease) -> dict[str, object]:
    return {
        "tenant_id": lease.tenant_id,
        "destination_id": lease.destination_id,
        "epoch": lease.epoch,
    }
