"""The pump's way to Postgres and the doorbell: storage is synchronous, so threads wait for it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from app.domain.deliveries import DeliveryState
from app.domain.destinations import Destination
from app.domain.health import HealthRules, Observed
from app.domain.operational_events import OperationalEventType
from app.domain.throttle import ThrottleState
from app.storage import (
    attempts,
    deliveries,
    destinations,
    due,
    health,
    leases,
    operational_events,
    steps,
)
from app.storage.configured import ConfiguredDestinations
from app.storage.deliveries import DeliveryKey, DeliveryResult
from app.storage.due import DuePage, Selection
from app.storage.engine import transaction
from app.storage.leases import Lease, Renewed
from worker.clock import DatabaseClock

LOG = structlog.get_logger(__name__)
T = TypeVar("T")

WORK_THREADS = 3
LEASE_THREADS = 1
CONNECTIONS = WORK_THREADS + LEASE_THREADS
"""What the pump needs of its engine's pool."""
DOORBELL_PAUSE_SECONDS = 5.0
BLOCKED_SECONDS = 10.0
"""Between tries at a destination to which this process, and perhaps every other, cannot send."""


class Doorbell(Protocol):
    """The flag that keeps a destination from being rung twice, and the ring itself."""

    def clear(self, tenant_id: int, destination_id: uuid.UUID) -> None:
        """Let the next ring send a message."""

    def ring(self, tenant_id: int, destination_ids: Sequence[uuid.UUID]) -> int:
        """Send a doorbell message to each unless one is under way; return how many were sent."""


class Reading(NamedTuple):
    """The destination as it is configured now, None when it is gone, and what is due."""

    destination: Destination | None
    page: DuePage


class Renewal(NamedTuple):
    """What the lease's row says, None when it is not ours, and the destination as it is now."""

    kept: Renewed | None
    destination: Destination | None


class Outbox:
    """Storage and doorbell as coroutines.

    Leases have a thread of their own: renewing must not wait behind reads and results, or one slow
    table would cost every lease at once.
    """

    def __init__(
        self,
        engine: Engine,
        doorbell: Doorbell,
        *,
        lease_seconds: float,
        rules: HealthRules | None = None,
        clock: DatabaseClock | None = None,
    ) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self.lease_seconds = lease_seconds
        self._rules = rules or HealthRules()
        self._clock = clock or DatabaseClock()
        self._work = ThreadPoolExecutor(WORK_THREADS, thread_name_prefix="outbox")
        self._leases = ThreadPoolExecutor(LEASE_THREADS, thread_name_prefix="leases")
        self._configured = ConfiguredDestinations()
        self._doorbell_rests_until = 0.0

    def close(self) -> None:
        """Let the threads end; one that still waits for Postgres is not waited for."""
        self._work.shutdown(wait=False, cancel_futures=True)
        self._leases.shutdown(wait=False, cancel_futures=True)

    async def read(
        self,
        lease: Lease,
        selection: Selection,
        *,
        max_rows: int,
        max_bytes: int,
        clear_doorbell: bool,
    ) -> Reading:
        """Read the configuration and what is due.

        Args:
            lease: says which destination.
            selection: of what is due.
            max_rows: of both kinds together.
            max_bytes: of content, of each kind.
            clear_doorbell: clear the flag first. Whoever commits behind this read then rings.
        """

        def work() -> Reading:
            if clear_doorbell:
                self._clear_doorbell(lease)
            with transaction(self._engine, durable=False) as connection:
                destination = self._configured.get(
                    connection, lease.tenant_id, lease.destination_id
                )
                page = due.read_due(
                    connection,
                    lease.tenant_id,
                    lease.destination_id,
                    selection=selection,
                    max_rows=max_rows,
                    max_bytes=max_bytes,
                )
                return Reading(destination, page)

        return await self._in(self._work, work)

    async def record(
        self, lease: Lease, results: Sequence[DeliveryResult]
    ) -> Counter[DeliveryState]:
        """Write results in one transaction."""

        def work(*, repeated: bool = False) -> Counter[DeliveryState]:
            with transaction(self._engine, durable=False) as connection:
                unkept = attempts.without_kept(connection, results) if repeated else results
                # First, so that the rows' locks are held for less.
                attempts.write(connection, unkept)
                return deliveries.record(connection, lease, results)

        try:
            return await self._in(self._work, work)
        except IntegrityError:
            return await self._in(self._work, partial(work, repeated=True))

    async def mark_attempts(
        self, lease: Lease, keys: Sequence[DeliveryKey], due_at: datetime | None = None
    ) -> None:
        """Count attempts before they are made. Durable: it must survive what they may cause."""

        def work() -> None:
            with transaction(self._engine) as connection:
                deliveries.mark_attempts(connection, lease, keys, due_at)

        await self._in(self._work, work)

    async def park(
        self, lease: Lease, rows: Sequence[tuple[DeliveryKey, int]], seconds: float
    ) -> None:
        """Make deliveries due in so many seconds, each with its number of attempts."""

        def work() -> None:
            with transaction(self._engine, durable=False) as connection:
                if leases.is_current(connection, lease):
                    steps.park(connection, rows, seconds=seconds)

        await self._in(self._work, work)

    async def disable(self, lease: Lease, url: str, reason: str) -> None:
        """Disable the destination, unless it has been given another URL meanwhile."""

        def work() -> None:
            with transaction(self._engine) as connection:
                now = destinations.get(connection, lease.tenant_id, lease.destination_id)
                if now is None or now.url != url:
                    return
                if destinations.disable(connection, lease.tenant_id, lease.destination_id, reason):
                    operational_events.emit(
                        connection,
                        lease.tenant_id,
                        OperationalEventType.DESTINATION_DISABLED,
                        lease.destination_id,
                        {"reason": reason},
                    )

        await self._in(self._work, work)

    async def block(self, lease: Lease, reason: str | None) -> None:
        """Note why nothing can be sent, so that nobody tries again for a while; None ends that."""

        def work() -> None:
            with transaction(self._engine, durable=False) as connection:
                leases.block(connection, lease, reason, BLOCKED_SECONDS)

        await self._in(self._work, work)

    async def has_due(self, tenant_id: int, destination_id: uuid.UUID) -> bool:
        """Tell whether anything waits."""

        def work() -> bool:
            with transaction(self._engine, durable=False) as connection:
                return due.has_due(connection, tenant_id, destination_id)

        return await self._in(self._work, work)

    async def acquire(self, tenant_id: int, destination_id: uuid.UUID, holder: str) -> Lease | None:
        """Take the lease, if it is free."""

        def work() -> Lease | None:
            return acquire(
                self._engine,
                tenant_id,
                destination_id,
                holder=holder,
                ttl_seconds=self.lease_seconds,
                clock=self._clock,
            )

        return await self._in(self._leases, work)

    async def renew(self, lease: Lease, throttle: ThrottleState, known: Observed | None) -> Renewal:
        """Prolong the lease, and look at the configuration while we are there.

        Args:
            lease: to prolong.
            throttle: to be kept for the next holder, and for people.
            known: the destination's health, likewise; None where it has not changed.
        """

        def work() -> Renewal:
            with transaction(self._engine, durable=False) as connection:
                kept = leases.renew(connection, lease, self.lease_seconds, throttle)
                if kept:
                    self._clock.hear(kept.at)
                    self._note(connection, lease, known)
                destination = self._configured.get(
                    connection, lease.tenant_id, lease.destination_id
                )
                return Renewal(kept, destination)

        return await self._in(self._leases, work)

    async def release(self, lease: Lease, throttle: ThrottleState, known: Observed | None) -> None:
        """Let go of the lease, and leave to the next holder what was found out."""

        def work() -> None:
            try:
                with transaction(self._engine, durable=False) as connection:
                    self._note(connection, lease, known)
                    leases.release(connection, lease, throttle)
            finally:
                # Here, behind a renewal that nobody waits for any more and that looked it up.
                self._configured.forget(lease.destination_id)

        await self._in(self._leases, work)

    async def ring(self, lease: Lease) -> None:
        """Call whoever comes first to this destination, ourselves included."""

        def work() -> None:
            self._clear_doorbell(lease)
            self._doorbell.ring(lease.tenant_id, [lease.destination_id])

        await self._in(self._work, work)

    def _note(self, connection: Connection, lease: Lease, known: Observed | None) -> None:
        if known is None:
            return
        now = self._clock.now()
        if change := health.note(connection, lease, known, now=now, rules=self._rules):
            LOG.warning(
                "destination.changed",
                change=change.value,
                destination_id=str(lease.destination_id),
                failures=known.health.failures,
                last_error=known.health.last_error,
            )

    def _clear_doorbell(self, lease: Lease) -> None:
        # Delivery goes on without Redis: the flag expires by itself, and the sweeper rings.
        if time.monotonic() < self._doorbell_rests_until:
            return
        try:
            self._doorbell.clear(lease.tenant_id, lease.destination_id)
        except Exception as error:  # noqa: BLE001  (whatever the client raises means the same)
            self._doorbell_rests_until = time.monotonic() + DOORBELL_PAUSE_SECONDS
            LOG.warning("doorbell.unreachable", error=str(error))

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, work)


def acquire(
    engine: Engine,
    tenant_id: int,
    destination_id: uuid.UUID,
    *,
    holder: str,
    ttl_seconds: float,
    clock: DatabaseClock,
) -> Lease | None:
    """Take a destination's lease from any thread, if it is free; the clock hears the time."""
    with transaction(engine, durable=False) as connection:
        lease = leases.acquire(connection, tenant_id, destination_id, holder, ttl_seconds)
        if lease is not None:
            clock.hear(lease.acquired_at)
        return lease
