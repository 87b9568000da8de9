"""The filter language against everything: random JSON, random documents, a naive interpreter."""

from __future__ import annotations

import json
import operator
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from app.domain.demands import DemandIndex
from app.domain.errors import FilterInvalid
from app.domain.filters import FIELDS, OPERATORS, parse_filter

SCALARS = st.sampled_from([None, True, False, 0, 1, 1.0, -1, 2.5, "", "a", "ab", "b", "1"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab01"), inner, max_size=3)
    ),
    max_leaves=6,
)
NUMBERS_AND_TEXTS = st.sampled_from([0, 1, 1.0, 2.5, "", "a", "ab", "1"])
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), VALUES),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), NUMBERS_AND_TEXTS),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(VALUES, max_size=3)),
    st.tuples(st.just("$exists"), st.booleans()),
    st.tuples(st.just("$startsWith"), st.sampled_from(["", "a", "ab"])),
)
NAMES = st.sampled_from(
    [*FIELDS, "attributes.a", "attributes.b", "attributes.a.b", "attributes.a.0", "attributes.1"]
)


def objects(entries):
    return st.lists(entries, min_size=1, max_size=3).map(dict)


BEHIND_FIELDS = st.recursive(
    SCALARS | objects(OPERATIONS),
    lambda inner: objects(
        st.tuples(st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=2))
        | st.tuples(st.just("$not"), inner)
    ),
    max_leaves=3,
)
FILTERS = st.recursive(
    objects(st.tuples(NAMES, BEHIND_FIELDS)),
    lambda inner: objects(
        st.tuples(st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3))
        | st.tuples(st.just("$not"), inner)
        | st.tuples(NAMES, BEHIND_FIELDS)
    ),
    max_leaves=4,
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["a", "ab"]),
        "category": st.sampled_from(["a", "b"]),
        "confidence": st.sampled_from([0.0, 1.0, 0.5]),
        "topics": st.lists(st.sampled_from(["a", "ab"]), max_size=2),
        "attributes": st.dictionaries(st.sampled_from(["a", "b", "1"]), VALUES, max_size=3),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=3) | st.sampled_from([*FIELDS, *OPERATORS, "attributes.a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON | st.dictionaries(st.sampled_from([*FIELDS, *OPERATORS]), JSON), DOCUMENTS)
def test_whatever_is_read_is_a_filter_or_refused(value, facts):
    with suppress(FilterInvalid):
        assert isinstance(parse_filter(value).matches(facts), bool)


@given(FILTERS, st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_a_document_holds_is_judged(filter_, facts):
    found = parse_filter(filter_)
    assert found.matches(facts) == (found.mismatch(facts) is None)


@given(FILTERS, DOCUMENTS)
def test_not_is_negation(filter_, facts):
    passes = parse_filter(filter_).matches(facts)
    assert parse_filter({"$not": filter_}).matches(facts) is not passes


@given(FILTERS, FILTERS, DOCUMENTS)
def test_and_and_or_are_what_they_say(one, other, facts):
    first, second = parse_filter(one).matches(facts), parse_filter(other).matches(facts)
    assert parse_filter({"$and": [one, other]}).matches(facts) is (first and second)
    assert parse_filter({"$or": [one, other]}).matches(facts) is (first or second)


@given(FILTERS, DOCUMENTS)
def test_filters_agree_with_a_naive_interpreter(filter_, facts):
    assert parse_filter(filter_).matches(facts) is naive(filter_, [], facts)


@given(FILTERS, DOCUMENTS)
def test_where_a_condition_holds_one_of_its_demands_is_met(filter_, facts):
    for condition in parse_filter(filter_).conditions:
        if condition.demands is not None and condition.holds(facts):
            index = DemandIndex()
            for demand in condition.demands:
                index.add(demand, 7)
            assert any(7 in group for group in index.find(facts))


# The interpreter: one walk over the JSON, everything compared by its JSON text.


def typed(value):
    """JSON text in which equal values look equal: 1 and 1.0 alike, 1 and true not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(float(value))
    if isinstance(value, list):
        return "[" + ",".join(map(typed, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{typed(value[k])}" for k in sorted(value)) + "}"
    return json.dumps(value)


def look(value, path):
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False, None
    return True, value


def naive(condition, path, facts):
    if not isinstance(condition, dict):
        condition = {"$eq": condition}
    for name, operand in condition.items():
        match name:
            case "$and":
                holds = all(naive(one, path, facts) for one in operand)
            case "$or":
                holds = any(naive(one, path, facts) for one in operand)
            case "$not":
                holds = not naive(operand, path, facts)
            case _ if name.startswith("$"):
                holds = compare(name, operand, *look(facts, path))
            case _:
                holds = naive(operand, [*path, *name.split(".")], facts)
        if not holds:
            return False
    return True


def compare(name, operand, found, value):
    match name:
        case "$exists":
            return found == operand
        case "$ne":
            return not compare("$eq", operand, found, value)
        case "$nin":
            return not compare("$in", operand, found, value)
        case "$in":
            return any(compare("$eq", one, found, value) for one in operand)
        case "$eq":
            elements = value if isinstance(value, list) else []
            return any(typed(operand) == typed(one) for one in [value, *elements])
    elements = value if isinstance(value, list) else [value]
    return any(ordered(name, operand, one) for one in elements)


def ordered(name, operand, value):
    if isinstance(value, bool) or isinstance(value, str) != isinstance(operand, str):
        return False
    if not isinstance(value, str | int | float):
        return False
    if name == "$startsWith":
        return isinstance(value, str) and value[: len(operand)] == operand
    negated = {"$gte": operator.lt, "$lte": operator.gt, "$gt": operator.le, "$lt": operator.ge}
    return not negated[name](value, operand)
