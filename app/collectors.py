"""Collectors: Python functions as destinations. What user code imports.

::

    from app.collectors import Error, Ok, collector


    @collector("archive", topics=["sensor.**"])
    async def archive(payload, ctx):
        if not isinstance(payload.value, dict):
            return Error("no event", permanent=True)
        return Ok({"size": len(payload.document.content)})


    handle = await archive.dispatch({"temperature": 21})  # from application code
    await handle  # {"size": 18}

``COLLECTORS=package.module`` makes workers run them. See docs/collectors.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from app.domain.calls import CallFailed, Context
from app.domain.collectors import (
    DEFAULT_TIMEOUT_SECONDS,
    Answer,
    CollectorSpec,
    Error,
    Function,
    Lifecycle,
    Ok,
)
from app.domain.payloads import Payload, content_of
from app.services.dispatching import Dispatched, Dispatcher, DispatchStatus
from app.settings import load_settings

__all__ = [
    "CallFailed",
    "Collector",
    "Context",
    "DispatchStatus",
    "Dispatched",
    "Error",
    "Ok",
    "Payload",
    "close",
    "collector",
]

_dispatchers: WeakKeyDictionary[asyncio.AbstractEventLoop, Dispatcher] = WeakKeyDictionary()


class Collector(CollectorSpec):
    """A function that is a destination. Called, it is the function: so it is tested."""

    async def __call__(self, payload: Payload, ctx: Any) -> Answer:
        """Run the function, here and now."""
        return await self.function(payload, ctx)

    async def dispatch(self, payload: Any, **fields: Any) -> Dispatched:
        """Enqueue a document for this collector alone; it is durable when this returns.

        Args:
            payload: text, or what JSON writes as an object or array.
            fields: of the document beside it: ``id``, ``version``, ``topics``, ``priority``,
                ``attributes``.

        Returns:
            A handle: ``id``, ``await handle`` or ``await handle.result(timeout=…)`` for the value,
            ``await handle.status()``.

        Raises:
            QueueFull: nothing was taken.
            QueueUnavailable: it may or may not have been taken.
            TypeError: the payload is neither text nor an object or array.
            ValueError: it cannot be stored, or a field does not hold what it must.
        """
        return await _dispatcher().dispatch(self.key, content_of(payload), **fields)


def collector(  # noqa: PLR0913  (all but the key by name)
    key: str,
    *,
    topics: Sequence[str] = (),
    categories: Sequence[str] = (),
    lifecycle: Lifecycle | None = None,
    ctx: Callable[[], Context] | Context = Context,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    documents: bool = True,
) -> Callable[[Function], Collector]:
    """Make a collector of an async function ``(payload, ctx) -> Ok | Error``.

    Args:
        key: of its destination, unique among all destinations.
        topics: patterns that it subscribes to.
        categories: it takes only these; none given: all.
        lifecycle: an async context manager function of ``ctx``; entered when a process starts, left
            when it stops.
        ctx: a subclass of ``Context``, for attributes with types; one is made per process.
        timeout_seconds: for one run; waiting for calls does not count.
        documents: False for one that takes calls of other collectors and nothing else.

    Raises:
        TypeError: it is no async function.
        ValueError: the key, a topic or a category is none.
    """

    def decorate(function: Function) -> Collector:
        return Collector(
            key=key,
            function=function,
            topics=tuple(topics),
            categories=tuple(categories),
            lifecycle=lifecycle,
            ctx=ctx,
            timeout_seconds=timeout_seconds,
            documents=documents,
        )

    return decorate


async def close() -> None:
    """Close the connections that ``dispatch`` has opened on this event loop."""
    dispatcher = _dispatchers.pop(asyncio.get_running_loop(), None)
    if dispatcher is not None:
        await dispatcher.close()


def _dispatcher() -> Dispatcher:
    loop = asyncio.get_running_loop()
    if loop not in _dispatchers:
        _dispatchers[loop] = Dispatcher(load_settings())
    return _dispatchers[loop]
