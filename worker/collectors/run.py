"""One run of a collector's function: on the host's loop, turn by turn as the pump lets it.

::

    turn ──▶ the function runs ──▶ it returns, raises, or takes too long ──▶ Ended
      ▲              │
      │              └─ it awaits calls that are not answered yet ──▶ None, the place is free
      └──── the holder has a place again ◀── resume() ◀── the calls have ended

While it waits the function is a coroutine in memory: no thread, no place of the concurrency limit.
If the process dies the next holder runs it from its beginning, and its calls are answered at once
by what was recorded of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from app.domain.calls import INVOCATION, Call, CallFailed, Context
from app.domain.collectors import CollectorSpec
from app.domain.errors import DatabaseUnavailable
from app.domain.payloads import Payload
from app.storage.deliveries import DeliveryKey
from app.storage.steps import NewStep, Step
from worker.collectors.calls import Calls
from worker.collectors.host import CollectorHost
from worker.collectors.outcomes import Ended, ended_by, ended_in_time

LOG = structlog.get_logger(__name__)
RETRY_BEGIN_SECONDS = 1.0


class ReplayDiverged(RuntimeError):
    """A function that was run anew makes other calls than the ones that are recorded."""


class Interrupted(asyncio.CancelledError):
    """The process must end; this run is nobody's fault, and was not attempted.

    Like any other cancellation it leaves the row to be given back; an error of ours would not.
    """


@dataclass(slots=True, eq=False)
class _Batch:
    """Calls that are awaited together, and the future on the host's loop that awaits them."""

    calls: Sequence[Call]
    answered: asyncio.Future[list[Any]]
    steps: dict[int, Step]
    failure: Exception | None = None

    @property
    def complete(self) -> bool:
        return self.failure is not None or all(one.state != "open" for one in self.steps.values())


class Run:
    """Lives on the pump's loop, but for what says otherwise; implements ``Invocation``."""

    def __init__(
        self,
        host: CollectorHost,
        calls: Calls,
        *,
        spec: CollectorSpec,
        key: DeliveryKey,
        timeout_seconds: float,
    ) -> None:
        """Prepare; nothing runs before the first turn."""
        self.resume: Callable[[], None] = lambda: None
        self._host = host
        self._calls = calls
        self._spec = spec
        self._key = key
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._future: Future[Ended] | None = None
        self._ended: Ended | None = None
        self._turn: asyncio.Future[None] | None = None
        self._spent_seconds = 0.0
        self._outstanding: set[_Batch] = set()
        self._ready: list[_Batch] = []
        self._queued = False
        self._is_over = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    async def turn(self, payload: Callable[[], Payload], context: Context) -> Ended | None:
        """Go on until the end, or until the function waits for calls: then None.

        Raises:
            Interrupted: the process is about to end because of another collector.
        """
        self._queued = False
        if self._future is None:
            self._future = self._host.submit(self._work(payload, context), self._key)
            self._future.add_done_callback(self._on_done)
        ready, self._ready = self._ready, []
        for batch in ready:
            self._hand_over(batch)
        if self._ended is None and not self._outstanding:
            await self._run()
        if self._ended is not None:
            self.cancel()
        return self._ended

    def cancel(self) -> None:
        """Give up, if it has not ended; nobody is called any more."""
        self._is_over = True
        if self._outstanding:
            self._calls.forget(self)
        for task in self._tasks:
            task.cancel()
        if self._future is not None:
            self._future.cancel()
        for batch in self._outstanding:  # awaited by tasks of its own, perhaps
            self._refuse(batch)

    def interrupt(self, *, culprit: bool, sentence: str) -> None:
        """The loop does not come round any more: end, guilty or not."""
        if culprit:  # between two turns, too, where it goes on beside its calls
            self._on_ended(ended_in_time(sentence, self._spent_seconds))
        elif self._turn is not None and not self._turn.done():
            self._turn.set_exception(Interrupted(sentence))

    async def _run(self) -> None:
        """Wait for the end or the next call, for as long as the function may take in all."""
        self._turn = turn = self._loop.create_future()
        free_time = self._host.free_time
        ends_at = free_time.seconds + self._timeout_seconds - self._spent_seconds
        try:
            while not turn.done():
                done, _ = await asyncio.wait({turn}, timeout=ends_at - free_time.seconds)
                if done:
                    break
                # Whether the loop has just been held up is known when it comes round.
                await asyncio.wait({turn, self._host.round()}, return_when=asyncio.FIRST_COMPLETED)
                if not turn.done() and free_time.seconds >= ends_at:
                    sentence = f"no result within {self._timeout_seconds:g} s"
                    self._ended = ended_in_time(sentence, self._timeout_seconds)
                    return
            turn.result()
        finally:
            self._spent_seconds = free_time.seconds - (ends_at - self._timeout_seconds)
            self._turn = None

    # On the host's loop

    async def _work(self, payload: Callable[[], Payload], context: Context) -> Ended:
        INVOCATION.set(self)
        began_at = self._host.loop.time()
        try:
            answer = await self._spec.function(payload(), context)
            return ended_by(answer, self._spec.key, self._host.loop.time() - began_at)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001  (not our code, nor is what it answers)
            return ended_by(error, self._spec.key, self._host.loop.time() - began_at)

    def next_number(self) -> int:
        """Return the number of the next call."""
        self._count += 1
        return self._count

    async def perform(self, calls: Sequence[Call]) -> list[Any]:
        """Return the values of calls, in order."""
        batch = _Batch(calls, self._host.loop.create_future(), {})
        self._loop.call_soon_threadsafe(self._on_calls, batch)
        return await batch.answered

    def _on_done(self, future: Future[Ended]) -> None:
        # Cancelled only by us, or by a function that cancels its own task.
        ended = ended_in_time("it was cancelled", 0.0) if future.cancelled() else future.result()
        with suppress(RuntimeError):  # the pump is gone; nobody would record it
            self._loop.call_soon_threadsafe(self._on_ended, ended)

    # On the pump's loop

    def _on_ended(self, ended: Ended) -> None:
        if self._ended is None:
            self._ended = ended
            self._go_on()

    def _on_calls(self, batch: _Batch) -> None:
        if self._is_over:
            # It cleans up. Recorded, this would stand in the way of what a run anew asks here.
            self._refuse(batch)
            return
        self._outstanding.add(batch)
        task = asyncio.create_task(self._begin(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, batch: _Batch) -> None:
        # The same one may be there twice.
        new = [NewStep(one.number, one.key, one.content) for one in dict.fromkeys(batch.calls)]
        while True:
            try:
                begun = await self._calls.begin(self._key, self._spec.key, new)
                break
            except DatabaseUnavailable as error:
                LOG.warning("call.begin_failed", key=self._spec.key, error=str(error))
                await asyncio.sleep(RETRY_BEGIN_SECONDS)
            except Exception as error:  # noqa: BLE001  (the function hears of it)
                batch.failure = error
                self._answer(batch)
                return
        batch.steps = begun.steps
        batch.failure = _fault(batch.calls, begun.steps, begun.unknown)
        if batch.complete:
            self._answer(batch)
            return
        waiting = [one for one in begun.steps.values() if one.state == "open"]
        self._calls.watch(self, waiting, lambda step: self._on_step(batch, step))
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def _on_step(self, batch: _Batch, step: Step) -> None:
        batch.steps[step.number] = step
        if batch.complete:
            self._answer(batch)

    def _answer(self, batch: _Batch) -> None:
        """Hand over what is complete, at once or, without a turn, with the next one."""
        if self._turn is None:
            self._ready.append(batch)
            self._go_on()
        else:
            self._hand_over(batch)

    def _go_on(self) -> None:
        """End the turn, or ask for one."""
        if self._turn is not None:
            if not self._turn.done():
                self._turn.set_result(None)
        elif not (self._queued or self._is_over):
            self._queued = True
            self.resume()

    def _refuse(self, batch: _Batch) -> None:
        self._host.loop.call_soon_threadsafe(batch.answered.cancel)

    def _hand_over(self, batch: _Batch) -> None:
        """Let the function go on with what its calls came to."""
        self._outstanding.discard(batch)
        try:
            values: list[Any] | Exception = _values(batch)
        except Exception as error:  # noqa: BLE001  (raised where the function awaits it)
            values = error
        self._host.loop.call_soon_threadsafe(_resolve, batch.answered, values)


def _fault(calls: Sequence[Call], recorded: dict[int, Step], unknown: set[str]) -> Exception | None:
    for call in calls:
        if call.key in unknown:
            return LookupError(f"no destination has the key {call.key!r}")
        if (known := recorded[call.number].key) != call.key:
            return ReplayDiverged(
                f"call {call.number} is recorded as one of {known!r}, and now asks {call.key!r}"
            )
    return None


def _values(batch: _Batch) -> list[Any]:
    if batch.failure is not None:
        raise batch.failure
    values = []
    for call in batch.calls:
        step = batch.steps[call.number]
        if step.state == "failed":
            raise CallFailed(call.key, step.error or "it failed")
        values.append(None if step.value is None else orjson.loads(step.value))
    return values


def _resolve(answered: asyncio.Future[list[Any]], values: list[Any] | Exception) -> None:
    if answered.done():
        return
    if isinstance(values, Exception):
        answered.set_exception(values)
    else:
        answered.set_result(values)
