"""What conditions ask of a document at the least, and an index of who asks for what.

A demand is weaker than the condition it comes from: where the condition holds, the demand is met.
So the members whose demands a document meets are found by looking up what the document holds, and
asking them alone is enough. Of a list, an element that meets a demand is enough, as in conditions.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from app.domain.comparisons import Path, list_index, scalar


class Kind(StrEnum):
    """How a value has to be."""

    IS = "is"
    STARTS = "starts"
    AT_LEAST = "at least"
    AT_MOST = "at most"
    THERE = "there"


class Demand(NamedTuple):
    """What the value at a path, or an element of it, must be.

    Attributes:
        operand: a ``scalar``, a prefix or a bound, as the kind has it; None for ``THERE``.
    """

    kind: Kind
    path: Path
    operand: Any = None


class _Bounds:
    """Members by the bound that values of one type must reach, or keep below."""

    def __init__(self) -> None:
        self._bounds: list[Any] = []
        self._members: list[int] = []

    def add(self, bound: Any, member: int) -> None:
        place = bisect_right(self._bounds, bound)
        self._bounds.insert(place, bound)
        self._members.insert(place, member)

    def up_to(self, value: Any) -> list[int]:
        return self._members[: bisect_right(self._bounds, value)]

    def down_to(self, value: Any) -> list[int]:
        return self._members[bisect_left(self._bounds, value) :]


class _Place:
    """A place within documents: who demands what there, and the places below."""

    __slots__ = ("at_least", "at_most", "below", "equal", "lengths", "starts", "there")

    def __init__(self) -> None:
        self.equal: dict[Any, set[int]] = {}
        self.starts: dict[str, set[int]] = {}
        self.lengths: list[int] = []
        self.at_least: dict[type, _Bounds] = {}
        self.at_most: dict[type, _Bounds] = {}
        self.there: set[int] = set()
        self.below: dict[str, _Place] = {}

    def add(self, demand: Demand, member: int) -> None:
        """Enter a demand on what stands here."""
        match demand.kind:
            case Kind.IS:
                self.equal.setdefault(demand.operand, set()).add(member)
            case Kind.STARTS:
                self.starts.setdefault(demand.operand, set()).add(member)
                self.lengths = sorted({len(prefix) for prefix in self.starts})
            case Kind.AT_LEAST:
                bounds = self.at_least.setdefault(_order(demand.operand), _Bounds())
                bounds.add(demand.operand, member)
            case Kind.AT_MOST:
                bounds = self.at_most.setdefault(_order(demand.operand), _Bounds())
                bounds.add(demand.operand, member)
            case Kind.THERE:
                self.there.add(member)

    def find(self, value: Any) -> Iterator[Collection[int]]:
        """Yield the members whose demands are met by what stands here, or below."""
        yield self.there
        if isinstance(value, dict):
            # Over the fewer of both: there may be 1,000 places, and as many attributes.
            names = min(value, self.below, key=len)
            inner = [(self.below[name], value[name]) for name in names if self._leads(name, value)]
        elif isinstance(value, list):
            for element in value:
                if not isinstance(element, dict | list):
                    yield from self._met_by(element)
            inner = [
                (place, value[index])
                for name, place in self.below.items()
                if (index := list_index(name)) is not None and index < len(value)
            ]
        else:
            yield from self._met_by(value)
            return
        for place, there in inner:
            yield from place.find(there)

    def _leads(self, name: str, value: dict[str, Any]) -> bool:
        return name in self.below and name in value

    def _met_by(self, value: Any) -> Iterator[Collection[int]]:
        if (members := self.equal.get(scalar(value))) is not None:
            yield members
        if isinstance(value, str):
            for length in self.lengths:
                if (members := self.starts.get(value[:length])) is not None:
                    yield members
        if type(value) in {int, float, str}:
            if (bounds := self.at_least.get(_order(value))) is not None:
                yield bounds.up_to(value)
            if (bounds := self.at_most.get(_order(value))) is not None:
                yield bounds.down_to(value)


def _order(value: Any) -> type:
    """Return what stands for the values that this one can be compared with."""
    return str if isinstance(value, str) else float


class DemandIndex:
    """Finds the members whose demands a document meets."""

    def __init__(self) -> None:
        self._root = _Place()

    def add(self, demand: Demand, member: int) -> None:
        """Enter one of a member's demands; one that is met is enough to be found."""
        place = self._root
        for part in demand.path:
            place = place.below.setdefault(part, _Place())
        place.add(demand, member)

    def find(self, facts: dict[str, Any]) -> list[Collection[int]]:
        """Return groups of members; together they hold everyone with a demand that is met."""
        return [group for group in self._root.find(facts) if group]
