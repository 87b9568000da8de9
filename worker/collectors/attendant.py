"""Takes up the collectors that this process carries: by doorbell, or because they wait.

Collectors have no queue. Not every worker carries every collector, and what is queued for one that
nobody carries would pile up. A ring is an announcement on a channel that all collector processes
hear; who misses it looks a second later.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app.domain.documents import DEFAULT_TENANT
from app.domain.errors import DatabaseUnavailable
from app.storage import carriers, ticks
from app.storage.engine import transaction
from worker.collectors.host import CollectorHost
from worker.deliver import DeliveryResources, deliver

LOG = structlog.get_logger(__name__)
LOOK_EVERY_SECONDS = 1.0


class Attendant:
    """A thread of each collector process."""

    def __init__(
        self,
        resources: DeliveryResources,
        host: CollectorHost,
        destinations: Mapping[str, uuid.UUID],
        rung: threading.Event,
    ) -> None:
        """Keep the parts.

        Args:
            resources: to take destinations up with.
            host: says which collectors are ready.
            destinations: their ids, by their keys.
            rung: set whenever a collector, ours or not, was rung.
        """
        self._resources = resources
        self._host = host
        self._destinations = destinations
        self._rung = rung
        self._carried: list[uuid.UUID] = []
        self._carry_at = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="attendant", daemon=True)

    @property
    def _engine(self) -> Engine:
        return self._resources.engine

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Take nothing up any more, and say that this process carries nothing."""
        self._stopping.set()
        self._rung.set()
        self._thread.join(timeout=5)
        try:
            with transaction(self._engine, durable=False) as connection:
                carriers.let_go(connection, DEFAULT_TENANT, self._resources.pump.name)
        except (DatabaseUnavailable, SQLAlchemyError) as error:
            LOG.warning("collectors.let_go_failed", reason=str(error).splitlines()[0])

    def _run(self) -> None:
        while not self._stopping.is_set():
            if rung := self._rung.is_set():  # a ring behind this look stays for the next one
                self._rung.clear()
            try:
                self.look(rung=rung)
            except (DatabaseUnavailable, SQLAlchemyError) as error:
                LOG.warning("collectors.look_failed", reason=str(error).splitlines()[0])
            except Exception:
                LOG.exception("collectors.look_failed")  # as in the sweeper
            self._rung.wait(LOOK_EVERY_SECONDS)

    def look(self, *, rung: bool) -> None:
        """Say what is carried, and take up what waits."""
        ready = [self._destinations[key] for key in self._host.ready]
        self._carry(ready)
        if not ready:
            return
        pump = self._resources.pump
        held = [one for one in ready if rung and pump.ring(DEFAULT_TENANT, one)]
        with transaction(self._engine, durable=False) as connection:
            waiting = ticks.waiting_destinations(connection, DEFAULT_TENANT, among=ready)
        for destination_id in waiting:
            if destination_id not in held and not self._stopping.is_set():
                deliver(self._resources, DEFAULT_TENANT, destination_id)

    def _carry(self, ready: list[uuid.UUID]) -> None:
        now = time.monotonic()
        if ready == self._carried and now < self._carry_at:
            return
        seconds = self._resources.pump.options.lease_seconds
        with transaction(self._engine, durable=False) as connection:
            carriers.carry(
                connection, DEFAULT_TENANT, ready, self._resources.pump.name, seconds + 1
            )
        self._carried = ready
        self._carry_at = now + seconds / 3
