"""Collectors: destinations that are asynchronous functions of the user's own.

::

    @collector("archive", topics=["sensor.*"])
    async def archive(payload, ctx):
        await write(payload.document.id, payload.value)
        return Ok()

A collector is a destination of the kind ``collector``: it takes documents, fails, is retried and is
paused like any other. What it returns is the result of its delivery.
"""

from __future__ import annotations

import inspect
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from app.domain.calls import Context
from app.domain.destinations import (
    Categories,
    Destination,
    DestinationInput,
    Key,
    TopicPatterns,
    make_destination,
)
from app.domain.identifiers import new_id
from app.domain.payloads import Payload

DEFAULT_TIMEOUT_SECONDS = 60.0
MAX_RESULT_BYTES = 256 * 1024
"""Of a result as JSON; the document is delivered all the same, a larger one is not stored."""
_PLACEHOLDER_URL = "https://collector.invalid/"
"""Satisfies the checks that every destination passes; a collector has no URL."""


@dataclass(frozen=True, slots=True)
class Ok:
    """The function has done its work; ``value`` is stored as the delivery's result.

    Attributes:
        value: what JSON can hold (also dataclasses, dates, UUIDs and Pydantic models).
    """

    value: Any = None


@dataclass(frozen=True, slots=True)
class Error:
    """The function could not do its work.

    Attributes:
        reason: for people; stored and shown.
        permanent: trying again would not help; the delivery ends as failed.
        retry_after: seconds, or a ``timedelta``, before which the next attempt makes no sense.
    """

    reason: str
    permanent: bool = False
    retry_after: float | timedelta | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be waited for, where it is said.

        Raises:
            TypeError: ``retry_after`` is no number, as the text of a header is none.
            ValueError, OverflowError: it is one that no time has.
        """
        asked = self.retry_after
        if not (asked is None or isinstance(asked, timedelta)) and math.isnan(asked):
            message = "retry_after is not a number of seconds"
            raise ValueError(message)

    @property
    def retry_after_seconds(self) -> float | None:
        """How long to wait at least."""
        asked = self.retry_after
        if asked is None:
            return None
        return asked.total_seconds() if isinstance(asked, timedelta) else float(asked)


Answer = Ok | Error
Function = Callable[[Payload, Any], Awaitable[Answer]]
Lifecycle = Callable[[Any], AbstractAsyncContextManager[Any]]


class _Declared(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: Key
    topics: TopicPatterns
    categories: Categories
    timeout_seconds: float = Field(gt=0)


@dataclass(frozen=True, kw_only=True)
class CollectorSpec:
    """A function with what it takes; ``app.collectors.collector`` makes one.

    Attributes:
        key: of its destination.
        function: the user's.
        topics, categories: what it takes, as of any destination.
        lifecycle: fills the context at start and cleans up at stop; None for nothing.
        ctx: makes the context, or is it.
        timeout_seconds: of running; waiting for calls does not count.
        documents: False for one that is only called by others.
    """

    key: str
    function: Function
    topics: Sequence[str] = ()
    categories: Sequence[str] = ()
    lifecycle: Lifecycle | None = None
    ctx: Callable[[], Context] | Context = Context
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    documents: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot work, where it is declared.

        Raises:
            ValueError: the key, a topic or a category is none; names the place.
            TypeError: the function is not asynchronous.
        """
        _Declared(
            key=self.key,
            topics=list(self.topics),
            categories=list(self.categories),
            timeout_seconds=self.timeout_seconds,
        )
        if not inspect.iscoroutinefunction(self.function):
            message = f"the collector {self.key!r} is not an async function"
            raise TypeError(message)

    def make_context(self) -> Context:
        """Return the context of this process."""
        return self.ctx if isinstance(self.ctx, Context) else self.ctx()

    @asynccontextmanager
    async def running(self, context: Context) -> AsyncIterator[None]:
        """Run the lifecycle around the block, if there is one."""
        if self.lifecycle is None:
            yield
            return
        lifecycle: Any = self.lifecycle
        if inspect.isasyncgenfunction(lifecycle):  # without its decorator
            lifecycle = asynccontextmanager(lifecycle)
        async with lifecycle(context):
            yield


def destination_of(tenant_id: int, spec: CollectorSpec, *, now: datetime) -> Destination:
    """Return the destination that a collector is registered as."""
    given = DestinationInput(key=spec.key, url=_PLACEHOLDER_URL)
    made = make_destination(tenant_id, given, now=now)
    return with_declared(made, spec, id=collector_id(), kind="collector", url="")


def with_declared(destination: Destination, spec: CollectorSpec, **others: Any) -> Destination:
    """Return a destination with what the code of its collector says."""
    return replace(
        destination,
        topics=list(spec.topics),
        categories=list(spec.categories),
        timeout_seconds=spec.timeout_seconds,
        documents=spec.documents,
        **others,
    )


_VERSION_BITS = 0xF << 76
_CUSTOM = 8 << 76


def collector_id() -> uuid.UUID:
    """Return the id of a new collector: ordered by time like others, but of UUID version 8.

    Whoever rings a destination knows nothing but its id, and collectors live in other processes.
    """
    return uuid.UUID(int=new_id().int & ~_VERSION_BITS | _CUSTOM)


def is_collector(destination_id: uuid.UUID) -> bool:
    """Tell whether an id is that of a collector."""
    return destination_id.int & _VERSION_BITS == _CUSTOM
