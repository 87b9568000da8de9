"""Brings rows to their results: one attempt each, or one for several that travel together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog

from app.domain.deliveries import Outcome
from app.domain.destinations import Destination
from app.domain.health import FINE, Observed
from app.storage.due import DueDelivery
from app.storage.leases import Lease
from worker.conclusions import Attempted, Attempting
from worker.outbox import Outbox
from worker.recorder import ResultGroup
from worker.suspended import Suspended
from worker.workload import Unit, Workload

LOG = structlog.get_logger(__name__)

FORGET_SECONDS = 5.0
"""Behind an error of ours a row may be read again; not at once, it may well come to the same."""


class Settling:
    """What one holder knows of its destination in order to attempt deliveries to it.

    Attributes:
        health: failures in a row, as of now.
        suspended: rows whose attempts wait for other deliveries.
        gone_because: what the receiver said that is gone; None while it is there.
    """

    def __init__(
        self,
        lease: Lease,
        attempts: Attempting,
        outbox: Outbox,
        *,
        workload: Workload,
        results: ResultGroup,
        on_change: Callable[[], None],
    ) -> None:
        """Keep the parts; nothing can be attempted before ``configure``.

        Args:
            lease: under which attempts are made.
            attempts: makes them.
            outbox: where they are marked first, if need be.
            workload: hears when an attempt is over.
            results: gets what it came to.
            on_change: called when a row that waited may go on, and when the receiver is gone.
        """
        self.health = lease.health
        self.suspended = Suspended(lease, outbox)
        self.gone_because: str | None = None
        self._lease = lease
        self._attempts = attempts
        self._outbox = outbox
        self._workload = workload
        self._results = results
        self._on_change = on_change
        self._url: str | None = None
        self._disregarded = False
        self._target: Any = None
        self._policy = attempts.conclusions.policy
        self._travels_together = False

    def configure(self, destination: Destination) -> None:
        """Prepare for a destination as it is now.

        Behind another URL is another receiver: what is known of the one before says nothing of it.

        Raises:
            TargetUnusable: nothing can be sent to it by anybody, until something is mended.
            ValueError: nothing can be delivered to it from here.
        """
        if self._url not in {None, destination.url}:
            self.health, self.gone_because = FINE, None
        self._url = destination.url
        self._policy = destination.retry_policy(self._attempts.conclusions.policy)
        self._travels_together = destination.batch is not None
        self._target = self._attempts.prepare(destination)

    @property
    def observed(self) -> Observed | None:
        """The health, and whose it is; None behind ``disregard``."""
        return None if self._disregarded else Observed(self.health, self._url)

    def begin_anew(self) -> None:
        """Count from nothing: the destination was paused and resumed, perhaps, since we looked."""
        self.health = FINE

    def disregard(self) -> None:
        """Count nothing more: the destination is paused, disabled or gone.

        What is still in flight may end behind its resumption, which begins anew.
        """
        self._disregarded = True

    async def settle(self, unit: Unit) -> Outcome | None:
        """Bring rows to their results; None when that took no request. Never raises."""
        try:
            due = [row for row in unit if not self._end_without_request(row)]
            if not due or self._target is None:
                return None
            if self._travels_together:
                return await self._attempt_together(due)
            # Several only where they were put together just before that was switched off.
            return [await self._attempt(row) for row in due][-1]
        except Exception as error:  # noqa: BLE001  (the rows are as they were: pending)
            self._log("delivery.attempt_failed", error=f"{type(error).__name__}: {error}")
            loop = asyncio.get_running_loop()
            loop.call_later(FORGET_SECONDS, self._workload.forget, [row.key for row in unit])
            return None
        finally:
            for row in unit:
                self._workload.ended(row, goes_on=row in self.suspended)

    async def give_back(self) -> None:
        """Leave what waits to the next holder; call it under the lease."""
        try:
            await self.suspended.give_back()
        except Exception as error:  # noqa: BLE001  (they fall due by themselves)
            self._log("delivery.give_back_failed", error=f"{type(error).__name__}: {error}")

    def abandon(self) -> None:
        """Forget what waits."""
        self._attempts.abandon(self.suspended.keys)

    def close(self) -> None:
        """End for good."""
        self.abandon()
        self.suspended.close()

    def _end_without_request(self, due: DueDelivery) -> bool:
        ended = self._attempts.conclusions.without_request(due, self._policy)
        if ended is not None:
            self._results.add(ended)
        return ended is not None

    async def _attempt_together(self, unit: Sequence[DueDelivery]) -> Outcome:
        await self._mark(unit)
        url = self._url
        attempted = await self._attempts.make_together(unit, self._target, self._policy)
        for one in attempted:
            self._results.add(one.result)
        self._heed(attempted[0], url)
        return attempted[0].outcome

    async def _attempt(self, due: DueDelivery) -> Outcome | None:
        if due not in self.suspended:
            await self._mark([due])
        resume = partial(self._resume, due)
        url = self._url
        try:
            attempted = await self._attempts.make(due, self._target, self._policy, resume)
        except Exception:
            await self.suspended.discard(due)
            raise
        if attempted is None:
            self.suspended.add(due)
            return None
        await self.suspended.discard(due)
        self._results.add(attempted.result)
        self._heed(attempted, url)
        return attempted.outcome

    async def _mark(self, unit: Sequence[DueDelivery]) -> None:
        if not self._lease.is_suspect:
            return
        due_at = self._attempts.conclusions.due_if_lost(unit[0], self._policy)
        await self._outbox.mark_attempts(self._lease, [one.key for one in unit], due_at)

    def _heed(self, attempted: Attempted, url: str | None) -> None:
        """Learn of the receiver behind a URL, unless there is another one by now."""
        if url != self._url:
            return
        self.health = self.health.after(attempted.outcome, attempted.result.finished_at)
        if attempted.step.disable_destination:
            self.gone_because = attempted.outcome.error
            self._on_change()

    def _resume(self, due: DueDelivery) -> None:
        self._workload.resume(due)
        self._on_change()

    def _log(self, event: str, **facts: object) -> None:
        LOG.warning(event, destination_id=str(self._lease.destination_id), **facts)
