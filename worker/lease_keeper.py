"""Keeps a lease for as long as its holder lives, and knows when it cannot be relied on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from app.domain.destinations import Destination
from app.domain.health import FINE, Observed
from app.domain.throttle import ThrottleState
from app.storage.leases import Lease, Renewed
from worker.outbox import Outbox
from worker.settling import Settling

LOG = structlog.get_logger(__name__)

FRESH_SHARE = 0.8
"""Of a new lease's time: it was taken a moment ago, on another thread."""
LONGEST_RETRY_SECONDS = 1.0


class LeaseKeeper:
    """Renews a lease three times within its length.

    While the database does not answer the lease may run out and go to somebody else, so nothing new
    is sent (``sure``); it is ``lost`` only when another epoch has begun.
    """

    def __init__(
        self,
        lease: Lease,
        outbox: Outbox,
        *,
        throttle: Callable[[], ThrottleState],
        settling: Settling,
        on_renewed: Callable[[Destination | None], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Begin to keep a lease.

        Args:
            lease: taken a moment ago.
            outbox: asked to renew.
            throttle: what is to be kept with the lease.
            settling: has the health, likewise.
            on_renewed: hears the destination's present configuration, None for a deleted one.
            on_lost: called once, when there is nothing to keep any more.
        """
        self.lost = False
        self._lease = lease
        self._outbox = outbox
        self._lease_seconds = outbox.lease_seconds
        self._throttle = throttle
        self._settling = settling
        self._noted = lease.health
        self._on_renewed = on_renewed
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._sure_until = self._loop.time() + FRESH_SHARE * self._lease_seconds
        self._task = asyncio.create_task(self._keep())

    @property
    def sure(self) -> bool:
        """Whether nobody else can have the lease now."""
        return not self.lost and self._loop.time() < self._sure_until

    async def release(self) -> None:
        """Let go of the lease; under an old epoch that changes nothing."""
        self._task.cancel()
        try:
            await self._outbox.release(self._lease, self._throttle(), self._unnoted())
        except Exception as error:  # noqa: BLE001  (it runs out by itself)
            self._log("lease.release_failed", error=str(error))

    async def _keep(self) -> None:
        pause = self._lease_seconds / 3
        try:
            while True:
                await asyncio.sleep(pause)
                pause = await self._renew()
                if self.lost:
                    self._log("lease.lost")
                    break
        except Exception as error:  # noqa: BLE001  (unkept is lost)
            self._log("lease.unkept", error=repr(error))
            self.lost = True
        self._on_lost()

    async def _renew(self) -> float:
        """Renew once; return how long to wait until the next time."""
        began_at = self._loop.time()
        unnoted = self._unnoted()
        try:
            renewal = await self._outbox.renew(self._lease, self._throttle(), unnoted)
        except Exception as error:  # noqa: BLE001  (what is not certain is not relied on)
            self._log("lease.renew_failed", error=str(error))
            return min(LONGEST_RETRY_SECONDS, self._lease_seconds / 3)
        self.lost = renewal.kept is None
        if renewal.kept:
            self._take_note(unnoted, renewal.kept)
            self._sure_until = began_at + self._lease_seconds
            self._on_renewed(renewal.destination)
        return self._lease_seconds / 3

    def _take_note(self, written: Observed | None, found: Renewed) -> None:
        """Keep in mind what is written, unless somebody has begun anew in between."""
        goes_on = written is None or written.goes_on
        if goes_on and found.failing_since != self._noted.failing_since:
            self._noted = FINE
            self._settling.begin_anew()
        elif written:
            self._noted = written.health

    def _unnoted(self) -> Observed | None:
        observed = self._settling.observed
        if observed is None or observed.health == self._noted:
            return None
        since = self._noted.failing_since
        return observed._replace(goes_on=observed.health.failing_since == since)

    def _log(self, event: str, **facts: str) -> None:
        LOG.warning(event, destination_id=str(self._lease.destination_id), **facts)
