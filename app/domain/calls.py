"""Calls between collectors, as the function that makes them sees them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from app.domain.payloads import content_of


class CallFailed(Exception):
    """A delivery that a collector called for ended without a value.

    Attributes:
        key: of the destination that was called.
        reason: what became of the delivery.
    """

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"The call of {key!r} failed: {reason}")


class Invocation(Protocol):
    """One run of a function, as its calls see it."""

    def next_number(self) -> int:
        """Return the number of the next call, in the order in which the function makes them."""

    async def perform(self, calls: Sequence[Call]) -> list[Any]:
        """Return the calls' values in order.

        Raises:
            CallFailed: of the first that has none.
        """


INVOCATION: ContextVar[Invocation] = ContextVar("collector_invocation")
"""The run that the present task belongs to; ``ctx`` is shared by all runs of a collector."""


class Call:
    """A delivery that a collector asks for; awaited, it returns the other's value."""

    def __init__(self, key: str, payload: Any) -> None:
        try:
            self._invocation = INVOCATION.get()
        except LookupError:
            sentence = "ctx.call and ctx.gather work inside a running collector only; use dispatch"
            raise RuntimeError(sentence) from None
        self.number = self._invocation.next_number()
        self.key = key
        self.content = content_of(payload)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._value().__await__()

    async def _value(self) -> Any:
        (value,) = await self._invocation.perform([self])
        return value


class Context:
    """What a collector keeps between its calls: one per collector and process, attributes free."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def call(self, key: str, payload: Any) -> Call:
        """Ask another collector (or any destination) by its key; await the answer for its value.

        The call is a recorded step: a run that begins anew gets the value at once.
        """
        return Call(key, payload)

    async def gather(self, *calls: Call | tuple[str, Any]) -> list[Any]:
        """Make several calls side by side and return their values in order.

        Raises:
            CallFailed: when all have ended, of the first that has no value.
        """
        made = [one if isinstance(one, Call) else Call(*one) for one in calls]
        return await INVOCATION.get().perform(made) if made else []
