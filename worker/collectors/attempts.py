"""Attempts by collectors: what the pump's holders use in place of webhooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.domain.calls import Context
from app.domain.collectors import CollectorSpec
from app.domain.deliveries import RetryPolicy
from app.domain.destinations import Destination
from app.domain.payloads import payload_of
from app.storage.deliveries import DeliveryKey
from app.storage.due import DueDelivery
from worker.collectors.calls import Calls
from worker.collectors.host import CollectorHost
from worker.collectors.run import Run
from worker.conclusions import Attempted, Conclusions


@dataclass(frozen=True, slots=True)
class CollectorTarget:
    """A collector that is ready in this process."""

    spec: CollectorSpec
    context: Context
    timeout_seconds: float


class CollectorAttempts:
    """Runs functions; implements ``Attempting``. Lives on the pump's loop."""

    def __init__(self, host: CollectorHost, calls: Calls, conclusions: Conclusions) -> None:
        self._host = host
        self._calls = calls
        self.conclusions = conclusions
        self._runs: dict[DeliveryKey, Run] = {}
        self.recorded = calls.recorded

    def prepare(self, destination: Destination) -> CollectorTarget:
        """Return the collector of a destination.

        Raises:
            ValueError: this process does not carry it, or not any more.
        """
        spec = self._host.specs.get(destination.key)
        context = self._host.context(destination.key)
        if destination.kind != "collector" or spec is None or context is None:
            message = f"{destination.key!r} is no collector that this process carries"
            raise ValueError(message)
        return CollectorTarget(spec, context, destination.timeout_seconds)

    async def make(
        self,
        due: DueDelivery,
        target: CollectorTarget,
        policy: RetryPolicy,
        resume: Callable[[], None],
    ) -> Attempted | None:
        """Run the function for a delivery, or let it go on.

        Raises:
            Interrupted: the process is about to end because of another collector.
        """
        run = self._runs.get(due.key)
        if run is None:
            run = self._runs[due.key] = Run(
                self._host,
                self._calls,
                spec=target.spec,
                key=due.key,
                timeout_seconds=target.timeout_seconds,
            )
        run.resume = resume
        try:
            ended = await run.turn(lambda: payload_of(due), target.context)
        except BaseException:
            self.abandon([due.key])
            raise
        if ended is None:
            return None
        del self._runs[due.key]
        return self.conclusions.conclude(
            due, ended.outcome, policy, value=ended.value, final=ended.final
        )

    async def make_together(
        self, unit: Sequence[DueDelivery], target: CollectorTarget, policy: RetryPolicy
    ) -> list[Attempted]:
        """Not for functions: ``app.domain.destinations`` refuses ``batch`` for them."""
        raise NotImplementedError

    def abandon(self, keys: Sequence[DeliveryKey]) -> None:
        """Give up the runs of deliveries."""
        for key in keys:
            run = self._runs.pop(key, None)
            if run is not None:
                run.cancel()

    def interrupt(self, culprit: object | None, sentence: str) -> None:
        """Give up all runs; only the one of the delivery that is to blame counts as attempted."""
        for key, run in self._runs.items():
            run.interrupt(culprit=key == culprit, sentence=sentence)
