"""Runs the user's router: on the thread that asks, or for coroutines on a loop of its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from app.domain.destinations import Destination
from app.domain.errors import RouterFailed
from app.domain.predictions import Prediction
from app.domain.routers import Chosen, RoutedDocument, Router, read_answer
from app.domain.routing import RoutingTable
from app.domain.text import sentence_of
from worker.under_way import UnderWay

ANSWER_SECONDS = 30.0
"""For a coroutine; a plain method cannot be interrupted."""
AT_ONCE = 100
"""Coroutines that wait at the same time."""


class Question(NamedTuple):
    """A document to be routed."""

    document: RoutedDocument
    prediction: Prediction | None


class TableRouter:
    """The routing that is built in, as a router: for documents that have to be routed again."""

    def ask(
        self, questions: Sequence[Question], table: RoutingTable
    ) -> list[Chosen | RouterFailed]:
        """Route documents by the table."""
        return [self._ask_one(one, table) for one in questions]

    def close(self) -> None:
        """Nothing is open."""

    def _ask_one(self, question: Question, table: RoutingTable) -> Chosen | RouterFailed:
        try:
            return Chosen(table.routes(question.document, question.prediction), {})
        except Exception as error:  # noqa: BLE001  (one document must not hold up the others)
            return _failure(error)


class RouterHost:
    """Asks the user's router. One per process; its threads may ask at the same time.

    Attributes:
        calls: those of the router that are under way, each of one document.
    """

    def __init__(self, router: Router, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self.calls = UnderWay()
        self._router = router
        self._answer_seconds = answer_seconds
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def ask(
        self, questions: Sequence[Question], table: RoutingTable
    ) -> list[Chosen | RouterFailed]:
        """Return the router's answer to each question, or why there is none."""
        destinations = table.destinations
        answers = [self._call(one, destinations) for one in questions]
        waiting = [one for one in answers if inspect.isawaitable(one)]
        awaited = iter(self._await_all(waiting) if waiting else ())
        found = [next(awaited) if inspect.isawaitable(one) else one for one in answers]
        return [_read(one, destinations) for one in found]

    def close(self) -> None:
        """End the loop, if there is one."""
        with self._lock:
            if self._loop is not None and self._thread is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(timeout=5)
                if not self._thread.is_alive():
                    self._loop.close()

    def _call(self, question: Question, destinations: Sequence[Destination]) -> object:
        try:
            with self.calls.call():
                return self._router.route(question.document, question.prediction, destinations)
        except (Exception, SystemExit) as error:  # noqa: BLE001  (it is not our code)
            return _failure(error)

    def _await_all(self, waiting: Sequence[Awaitable[object]]) -> list[object]:
        return asyncio.run_coroutine_threadsafe(
            self._gather(waiting), self._running_loop()
        ).result()

    async def _gather(self, waiting: Sequence[Awaitable[object]]) -> list[object]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def answer(one: Awaitable[object]) -> object:
            async with turns:
                try:
                    # Counted too: one that blocks the loop is not interrupted either.
                    async with asyncio.timeout(self._answer_seconds):
                        with self.calls.call():
                            return await one
                except TimeoutError:
                    return RouterFailed(f"it did not answer within {self._answer_seconds:g} s")
                except (Exception, SystemExit, asyncio.CancelledError) as error:  # noqa: BLE001  (it is not our code)
                    return _failure(error)

        return list(await asyncio.gather(*map(answer, waiting)))

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="router", daemon=True
                )
                self._thread.start()
            return self._loop


def _read(answer: object, destinations: Sequence[Destination]) -> Chosen | RouterFailed:
    if isinstance(answer, RouterFailed):
        return answer
    try:
        return read_answer(answer, destinations)
    except RouterFailed as error:
        return error
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a generator of the user's)
        return _failure(error)


def _failure(error: BaseException) -> RouterFailed:
    failure = RouterFailed(sentence_of(error))
    failure.__cause__ = error
    return failure
