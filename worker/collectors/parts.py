"""Puts the collectors' parts together for one process."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Engine

from app.domain.collectors import CollectorSpec
from app.domain.documents import DEFAULT_TENANT
from app.services.collectors import register_collectors
from worker.collectors.attempts import CollectorAttempts
from worker.collectors.attendant import Attendant
from worker.collectors.calls import Calls
from worker.collectors.host import CollectorHost
from worker.collectors.watch import WatchOptions, watch
from worker.conclusions import Attempting, Conclusions
from worker.deliver import DeliveryResources
from worker.outbox import Doorbell
from worker.pump import Pump, PumpOptions


@dataclass(frozen=True, slots=True)
class CollectorParts:
    """A process's collectors: their loop, a pump of their own, and what takes them up."""

    host: CollectorHost
    pump: Pump
    attendant: Attendant

    def start(self) -> None:
        """Start everything."""
        self.host.start()
        self.pump.start()
        self.attendant.start()

    def stop(self) -> None:
        """Finish or hand back what is under way."""
        self.attendant.stop()
        self.pump.stop()

    def close(self) -> None:
        """End the lifecycles."""
        self.host.stop()


def make_parts(
    specs: Iterable[CollectorSpec],
    engine: Engine,
    doorbell: Doorbell,
    rung: threading.Event,
    options: PumpOptions,
    watching: WatchOptions,
) -> CollectorParts:
    """Register the collectors, and make what runs them.

    Raises:
        DatabaseUnavailable: they could not be registered.
        SettingsInvalid: a webhook destination has the key of one.
    """
    by_key = {one.key: one for one in specs}
    destinations: dict[str, uuid.UUID] = register_collectors(
        engine, DEFAULT_TENANT, by_key.values()
    )
    host = CollectorHost(by_key)

    @asynccontextmanager
    async def attempting(options: PumpOptions) -> AsyncIterator[Attempting]:
        calls = Calls(engine, doorbell.ring)
        attempts = CollectorAttempts(
            host, calls, Conclusions(options.policy, now=options.clock.now)
        )
        watching_task = asyncio.create_task(watch(host, attempts, watching))
        try:
            yield attempts
        finally:
            watching_task.cancel()
            calls.close()

    pump = Pump(engine, doorbell, options, attempting)
    resources = DeliveryResources(engine=engine, pump=pump)
    return CollectorParts(host, pump, Attendant(resources, host, destinations, rung))
