"""The filter language: conditions on a document, written as JSON.

::

    {"category": "sci.space", "confidence": {"$gte": 0.8},
     "attributes.customer.tier": {"$in": ["gold", "silver"]},
     "$or": [{"topics": "sensor.a"}, {"attributes": {"urgent": true, "region": {"$ne": "eu"}}}]}

The entries of an object must all hold. A name leads to a field (``id``, ``category``,
``confidence``, ``topics``, ``attributes``) and with dots, or as an object in an object, into
``attributes``; a whole number leads into a list, and a backslash before a dot makes it part of the
name. Behind a name stands a value to equal, or operators.

What never surprises:

- Values of different types are neither equal nor in an order; a boolean is no number, 1 is 1.0.
- Of a list (``topics`` is one) one element that fits is enough.
- What is not there equals null and nothing else; ``$exists`` tells it from a null.
- ``$ne``, ``$nin`` and ``$not`` are true exactly where ``$eq``, ``$in`` and the condition are not.
- Strings are compared by code points.

A filter is read and checked once, when a destination is made; then it never raises.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.domain.comparisons import (
    MISSING,
    ORDERS,
    Check,
    Path,
    any_element,
    find,
    in_order,
    is_one_of,
    scalar,
    starts_with,
)
from app.domain.demands import Demand, Kind
from app.domain.errors import FilterInvalid, Violation
from app.domain.text import escape, json_faults

MAX_BYTES = 16 * 1024
MAX_DEPTH = 12
MAX_CONDITIONS = 250

FIELDS = ("id", "category", "confidence", "topics", "attributes")
OPERATORS = (
    *("$eq", "$ne", *ORDERS, "$in", "$nin", "$exists", "$startsWith"),
    *("$and", "$or", "$not"),
)

Facts = dict[str, Any]
"""What a filter looks at: ``FIELDS`` by name, those that are None left out."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One of the things that must all hold.

    Attributes:
        pointer: where it stands in the filter (RFC 6901).
        holds: tells whether it does, for the facts of a document.
        demands: where it holds, one of these is met; None where that cannot be said.
    """

    pointer: str
    holds: Callable[[Facts], bool]
    demands: Sequence[Demand] | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter that was read: a document must meet all conditions."""

    conditions: Sequence[Condition]

    def matches(self, facts: Facts) -> bool:
        """Tell whether a document passes."""
        return all(condition.holds(facts) for condition in self.conditions)

    def mismatch(self, facts: Facts) -> str | None:
        """Return the place of the first condition that does not hold, None when all do."""
        for condition in self.conditions:
            if not condition.holds(facts):
                return condition.pointer
        return None


def parse_filter(given: Any, pointer: str = "") -> Filter:
    """Read a filter; an empty one lets everything pass.

    Args:
        given: parsed JSON.
        pointer: where it stands in what was sent.

    Raises:
        FilterInvalid: names every place that is wrong.
    """
    if not isinstance(given, dict):
        raise FilterInvalid([Violation(pointer, "A filter is a JSON object.")])
    if faults := list(json_faults(given, pointer)):
        raise FilterInvalid(faults)
    if len(orjson.dumps(given)) > MAX_BYTES:
        raise FilterInvalid([Violation(pointer, f"A filter may have {MAX_BYTES} bytes.")])
    reader = _Reader()
    conditions = reader.all_of(given, (), pointer, 0) if given else []
    if reader.violations:
        raise FilterInvalid(reader.violations)
    return Filter(conditions)


class _Reader:
    """Makes conditions of JSON; gathers what is wrong instead of stopping at the first."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self._conditions = 0

    def all_of(self, given: Any, path: Path, pointer: str, depth: int) -> list[Condition]:
        """Read what must all hold of the value at ``path``."""
        if not isinstance(given, dict):
            return self._equality(given, path, pointer)
        if depth >= MAX_DEPTH:
            return self._wrong(pointer, f"is nested deeper than {MAX_DEPTH} levels")
        if not given:
            return self._wrong(pointer, "is empty and says nothing")
        found: list[Condition] = []
        for name, operand in given.items():
            place = f"{pointer}/{escape(name)}"
            if name.startswith("$"):
                found += self._operator(name, operand, path, place, depth)
            elif (inner := self._path(path, name, place)) is not None:
                found += self.all_of(operand, inner, place, depth + 1)
        return found

    def _wrong(self, pointer: str, detail: str) -> list[Condition]:
        self.violations.append(Violation(pointer, detail))
        return []

    def _path(self, path: Path, name: str, pointer: str) -> Path | None:
        parts = tuple(part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", name))
        whole = (*path, *parts)
        if "" in parts:
            self._wrong(pointer, "has an empty part; parts are separated by single dots")
        elif whole[0] not in FIELDS:
            self._wrong(pointer, f"is not a field; there are {', '.join(FIELDS)}")
        elif len(whole) > 1 and whole[0] != "attributes":
            self._wrong(pointer, f"leads into {whole[0]}, which has no parts; attributes has")
        else:
            return whole
        return None

    def _equality(self, given: Any, path: Path, pointer: str) -> list[Condition]:
        if isinstance(given, list):
            return self._wrong(pointer, "is a list; say `$in` for one of it, `$eq` for all of it")
        return self._operator("$eq", given, path, pointer, 0)

    def _operator(
        self, name: str, operand: Any, path: Path, pointer: str, depth: int
    ) -> list[Condition]:
        self._conditions += 1
        if self._conditions == MAX_CONDITIONS + 1:
            self._wrong(pointer, f"is one condition too many; there may be {MAX_CONDITIONS}")
        if name in {"$and", "$or"}:
            return self._list_of_conditions(name, operand, path, pointer, depth)
        if name == "$not":
            inner = self.all_of(operand, path, pointer, depth + 1)
            return [Condition(pointer, lambda facts: not _all_hold(inner, facts))]
        if fault := _fault(name, operand, path):
            return self._wrong(pointer, fault)
        return [_comparison(name, operand, path, pointer)]

    def _list_of_conditions(
        self, name: str, operand: Any, path: Path, pointer: str, depth: int
    ) -> list[Condition]:
        if not isinstance(operand, list) or not operand:
            return self._wrong(pointer, "needs a list of conditions")
        branches = [
            self.all_of(one, path, f"{pointer}/{index}", depth + 1)
            for index, one in enumerate(operand)
        ]
        if name == "$and":
            return [condition for branch in branches for condition in branch]
        return [
            Condition(
                pointer,
                lambda facts: any(_all_hold(branch, facts) for branch in branches),
                _demands_of_one(branches),
            )
        ]


def _demands_of_one(branches: Sequence[Sequence[Condition]]) -> list[Demand] | None:
    """Return demands of which one is met where one branch holds."""
    found: list[Demand] = []
    for branch in branches:
        demands = next((one.demands for one in branch if one.demands is not None), None)
        if demands is None:
            return None
        found += demands
    return found


def _all_hold(conditions: Sequence[Condition], facts: Facts) -> bool:
    return all(condition.holds(facts) for condition in conditions)


def _fault(name: str, operand: Any, path: Path) -> str | None:
    if name not in OPERATORS:
        return f"is not an operator; there are {', '.join(OPERATORS)}"
    if not path:
        return "belongs behind a field; here is none"
    return _operand_fault(name, operand)


def _operand_fault(name: str, operand: Any) -> str | None:
    if name in ORDERS and type(operand) not in {int, float, str}:
        return "needs a number or a string"
    if name in {"$in", "$nin"} and not isinstance(operand, list):
        return "needs a list"
    if name == "$exists" and not isinstance(operand, bool):
        return "needs true or false"
    if name == "$startsWith" and not isinstance(operand, str):
        return "needs a string"
    return None


def _comparison(name: str, operand: Any, path: Path, pointer: str) -> Condition:
    if name == "$exists":
        there = [Demand(Kind.THERE, path)] if operand else None
        return Condition(
            pointer, lambda facts: (find(facts, path) is not MISSING) is operand, there
        )
    if name == "$startsWith":
        check = any_element(starts_with(operand))
        return _condition(pointer, path, check, [Demand(Kind.STARTS, path, operand)])
    if name in ORDERS:
        kind = Kind.AT_LEAST if name in {"$gt", "$gte"} else Kind.AT_MOST
        check = any_element(in_order(ORDERS[name], operand))
        return _condition(pointer, path, check, [Demand(kind, path, operand)])
    values = operand if name in {"$in", "$nin"} else [operand]
    scalars = frozenset(scalar(one) for one in values if not isinstance(one, dict | list))
    containers = [one for one in values if isinstance(one, dict | list)]
    is_one = is_one_of(scalars, containers)
    if name in {"$ne", "$nin"}:
        return _condition(pointer, path, lambda value: not is_one(value))
    if None in scalars:
        # Met by what is not there.
        return _condition(pointer, path, is_one)
    demands = [Demand(Kind.IS, path, one) for one in scalars]
    if containers:
        demands.append(Demand(Kind.THERE, path))
    return _condition(pointer, path, is_one, demands)


def _condition(
    pointer: str, path: Path, check: Check, demands: Sequence[Demand] | None = None
) -> Condition:
    return Condition(pointer, lambda facts: check(find(facts, path)), demands)
