"""How filters compare JSON values: type by type, and never with an exception."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
MISSING = object()
"""What a path leads to where there is nothing."""

Path = tuple[str, ...]
Check = Callable[[Any], bool]


def find(facts: dict[str, Any], path: Path) -> Any:
    """Return the value at a path, ``MISSING`` where there is none."""
    value: Any = facts
    for part in path:
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list) and (index := list_index(part)) is not None:
            value = value[index] if index < len(value) else MISSING
        else:
            return MISSING
    return value


def list_index(part: str) -> int | None:
    """Return the place in a list that a part of a path names, None when it names none."""
    # Short, because Python refuses to read numbers of thousands of digits.
    return int(part) if len(part) < 10 and part.isascii() and part.isdigit() else None  # noqa: PLR2004  (ample)


def scalar(value: Any) -> Any:
    """Return what stands for a JSON scalar in a comparison: Python's True equals its 1."""
    if value is MISSING:
        return None
    return (value,) if isinstance(value, bool) else value


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal, type by type."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(value, other[name]) for name, value in one.items())
        )
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return not isinstance(other, dict | list) and bool(scalar(one) == scalar(other))


def is_one_of(scalars: frozenset[Any], containers: Sequence[Any]) -> Check:
    """Check that a value, or an element of it, equals one of these."""

    def check_one(value: Any) -> bool:
        if isinstance(value, dict | list):
            return any(same(one, value) for one in containers)
        return scalar(value) in scalars

    def check(value: Any) -> bool:
        return check_one(value) or (isinstance(value, list) and any(map(check_one, value)))

    return check


def any_element(check: Check) -> Check:
    """Let one element of a list be enough."""
    return lambda value: any(map(check, value)) if isinstance(value, list) else check(value)


def starts_with(prefix: str) -> Check:
    """Check that a value is a string with this beginning."""
    return lambda value: isinstance(value, str) and value.startswith(prefix)


def in_order(order: Callable[[Any, Any], bool], operand: Any) -> Check:
    """Check how a value stands to a number or a string, if it is of the same type."""
    kinds = {str} if isinstance(operand, str) else {int, float}
    return lambda value: type(value) in kinds and order(value, operand)
