"""What a doorbell message leads to: the destination is held by somebody, or by us from now on."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import Engine

from app.storage import leases
from app.storage.engine import transaction
from worker.outbox import acquire
from worker.pump import Pump


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryResources:
    """What a delivery process has."""

    engine: Engine
    pump: Pump


def deliver(resources: DeliveryResources, tenant_id: int, destination_id: uuid.UUID) -> None:
    """Take up a destination and return at once; the pump does the rest.

    Where another process has the lease, it will see what is new by itself.

    Raises:
        DatabaseUnavailable: the lease could not be asked for.
    """
    engine, pump = resources.engine, resources.pump
    if pump.ring(tenant_id, destination_id):
        return
    lease = acquire(
        engine,
        tenant_id,
        destination_id,
        holder=pump.name,
        ttl_seconds=pump.options.lease_seconds,
        clock=pump.options.clock,
    )
    if lease is not None and not pump.hand_over(lease):
        with transaction(engine, durable=False) as connection:
            leases.release(connection, lease)
