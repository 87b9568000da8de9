"""Rows whose attempts wait for other deliveries: begun, not in flight, not to be begun again."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet

import structlog

from app.storage.deliveries import DeliveryKey
from app.storage.due import DueDelivery
from app.storage.leases import Lease
from worker.outbox import Outbox

LOG = structlog.get_logger(__name__)
PARK_LEASES = 2.0
"""How far in the future they are made due, in lengths of the lease; renewed at a third of that."""
FIRST_PARK_SECONDS = 1.0
"""What waits for less time costs no write."""
MOST = 1_000
"""Of one holder; beyond it nothing new begins, or a backlog would move into memory as a whole."""
MORE = 100
STUCK_SECONDS = 10.0
"""They may all wait for rows that have not begun, of this very destination. So when none has moved
for this long, some more may begin."""


class Suspended:
    """The rows of one holder that wait.

    Where they wait is the memory of this process; the lease says that nobody else may send them. In
    the database they are made due later, again and again: the holder would otherwise read them over
    and over, before the others. When the process dies they fall due, as attempts that have begun.
    """

    def __init__(self, lease: Lease, outbox: Outbox) -> None:
        self._lease = lease
        self._outbox = outbox
        self._rows: dict[DeliveryKey, DueDelivery] = {}
        self._parked: set[DeliveryKey] = set()
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._most = MOST
        self._moved_at = self._loop.time()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, row: DueDelivery) -> bool:
        # Nearly always there is none, and a key is long to hash.
        return bool(self._rows) and row.key in self._rows

    @property
    def full(self) -> bool:
        """Whether nothing new should begin."""
        if len(self._rows) < self._most:
            return False
        now = self._loop.time()
        if now < self._moved_at + STUCK_SECONDS:
            return True
        self._most += MORE
        self._moved_at = now
        return False

    @property
    def keys(self) -> list[DeliveryKey]:
        """Which rows."""
        return list(self._rows)

    @property
    def parked(self) -> AbstractSet[DeliveryKey]:
        """Which rows no read finds, because they were made due later."""
        return self._parked

    def add(self, row: DueDelivery) -> None:
        """A row waits."""
        self._rows[row.key] = row
        if self._task is None:
            self._task = asyncio.create_task(self._park())

    async def discard(self, row: DueDelivery) -> None:
        """The attempt at a row has ended; returns when what is recorded of that will stand."""
        if self._rows.pop(row.key, None) is None:
            return
        self._parked.discard(row.key)
        self._moved_at = self._loop.time()
        if len(self._rows) < MOST:
            self._most = MOST
        async with self._writing:  # it may be parked at this moment, over the time of its retry
            pass

    async def give_back(self) -> None:
        """Leave the rows to the next holder as they were found; call it under the lease."""
        async with self._writing:  # what is being parked comes first, and is given back as well
            self.close()
            rows = [(key, self._rows[key].attempts) for key in self._parked]
            if rows:
                await self._outbox.park(self._lease, rows, 0)
        self._rows.clear()

    def close(self) -> None:
        """Keep the rows no longer."""
        if self._task:
            self._task.cancel()
            self._task = None

    async def _park(self) -> None:
        seconds = PARK_LEASES * self._outbox.lease_seconds
        pause = min(FIRST_PARK_SECONDS, seconds / 3)
        while True:
            await asyncio.sleep(pause)
            if not self._rows:
                break
            async with self._writing:
                await self._park_all(seconds)
            pause = seconds / 3
        self._task = None

    async def _park_all(self, seconds: float) -> None:
        rows = [(key, row.attempts + 1) for key, row in self._rows.items()]
        try:
            await self._outbox.park(self._lease, rows, seconds)
        except Exception as error:  # noqa: BLE001  (it is read once more than needed)
            destination_id = str(self._lease.destination_id)
            LOG.warning("delivery.park_failed", destination_id=destination_id, error=str(error))
        else:
            # Some may have ended meanwhile.
            self._parked.update(key for key, _ in rows if key in self._rows)
