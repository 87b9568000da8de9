"""The filter language against everything: random JSON, random documents, a naive interpreter."""

from __future__ import annotations

import json
import math
import operator
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.demands import DemandIndex
from app.domain.errors import FilterInvalid
from app.domain.filters import FIELDS, OPERATORS, parse_filter
from app.domain.text import escape

# With neighbours that floats cannot tell apart, and strings that UTF-16 orders otherwise.
LARGE = [2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63) + 1, 1e308, -0.0]
ODD = ["\uffff", "\U0001f600", "a\U0001f600"]
SCALARS = st.sampled_from(
    [None, True, False, 0, 1, 1.0, -1, 2.5, "", "a", "ab", "b", "1", *LARGE, *ODD]
)
# Beside them, because what is recursive alone is seldom one.
VALUES = SCALARS | st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab01"), inner, max_size=3)
    ),
    max_leaves=6,
)
NUMBERS_AND_TEXTS = st.sampled_from([0, 1, 1.0, 2.5, "", "a", "ab", "1", *LARGE, *ODD])
OPERANDS = {
    **dict.fromkeys(["$eq", "$ne"], VALUES),
    **dict.fromkeys(["$gt", "$gte", "$lt", "$lte"], NUMBERS_AND_TEXTS),
    **dict.fromkeys(["$in", "$nin"], st.lists(VALUES, max_size=3)),
    "$exists": st.booleans(),
    "$startsWith": st.sampled_from(["", "a", "ab"]),
}
OPERATIONS = st.one_of(st.tuples(st.just(name), operand) for name, operand in OPERANDS.items())
NAMES = st.sampled_from(
    [
        *FIELDS,
        *("attributes.a", "attributes.b", "attributes.a.b", "attributes.a.0", "attributes.1"),
        *("attributes.a\\.b", "attributes.a\\.b.a", "attributes.a/b~c"),
    ]
)
INNER_NAMES = st.sampled_from(["a", "b", "a.b", "a.0", "1", "a\\.b", "a/b~c"])


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
NAMED = st.tuples(NAMES, BEHIND_FIELDS) | st.tuples(
    st.sampled_from(["attributes", "attributes.a"]),
    objects(st.tuples(INNER_NAMES, BEHIND_FIELDS)),
)
FILTERS = st.recursive(
    objects(NAMED),
    lambda inner: objects(
        st.tuples(st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3))
        | st.tuples(st.just("$not"), inner)
        | NAMED
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
        "attributes": st.dictionaries(
            st.sampled_from(["a", "b", "1", "a.b", "a/b~c"]), VALUES, max_size=4
        ),
    },
)
STRINGS = st.text(max_size=3) | st.sampled_from(["\0", "\ud800"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | STRINGS
JSON = LEAVES | st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            STRINGS | st.sampled_from([*FIELDS, *OPERATORS, "attributes.a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    st.one_of(
        JSON,
        st.dictionaries(st.sampled_from([*FIELDS, *OPERATORS]), JSON),
        st.dictionaries(NAMES, st.dictionaries(st.sampled_from(OPERATORS), JSON), max_size=2),
    ),
    DOCUMENTS,
)
def test_whatever_is_read_is_a_filter_or_refused_with_the_places_named(value, facts):
    try:
        found = parse_filter(value, "/filter")
    except FilterInvalid as error:
        refusal = error
    else:
        assert isinstance(found.matches(facts), bool)
        # Postgres takes it: no infinity, and nothing that UTF-8 cannot hold.
        assert json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        return
    assert refusal.violations
    for one in refusal.violations:
        at({"filter": value}, one.pointer)
        assert one.detail


@given(FILTERS, st.data())
def test_one_wrong_thing_in_a_good_filter_is_named(filter_, data):
    """Beside a condition, whatever stands there: an operator that is none."""
    spoilt = json.loads(json.dumps(filter_))
    place = data.draw(st.sampled_from(list(objects_in(spoilt, ""))))
    at(spoilt, place)["$like"] = 1
    with pytest.raises(FilterInvalid) as caught:
        parse_filter(spoilt)
    assert [one.pointer for one in caught.value.violations] == [f"{place}/$like"]


@given(FILTERS, st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_a_document_holds_is_judged(filter_, facts):
    found = parse_filter(filter_)
    place = found.mismatch(facts)
    assert found.matches(facts) == (place is None)
    if place is not None:
        at(filter_, place)


@given(FILTERS, DOCUMENTS)
def test_not_is_negation(filter_, facts):
    passes = parse_filter(filter_).matches(facts)
    assert parse_filter({"$not": filter_}).matches(facts) is not passes


@given(NAMES, BEHIND_FIELDS, VALUES, st.lists(VALUES, max_size=3), DOCUMENTS)
def test_behind_a_field_not_is_negation_too(name, condition, value, values, facts):
    def passes(given):
        return parse_filter({name: given}).matches(facts)

    assert passes({"$not": condition}) is not passes(condition)
    assert passes({"$not": {"$not": condition}}) is passes(condition)
    assert passes({"$ne": value}) is not passes({"$eq": value})
    assert passes({"$nin": values}) is not passes({"$in": values})


@given(FILTERS, FILTERS, DOCUMENTS)
def test_what_logic_says_is_the_same_is_the_same(one, other, facts):
    def same(*filters):
        return len({parse_filter(filter_).matches(facts) for filter_ in filters}) == 1

    assert same({"$and": [one]}, {"$or": [one]}, {"$or": [one, one]}, one)
    assert same({"$and": [one, other]}, {"$and": [other, one]})
    assert same({"$or": [one, other]}, {"$or": [other, one]})
    neither = {"$and": [{"$not": one}, {"$not": other}]}
    assert same({"$not": {"$or": [one, other]}}, neither)
    assert same({"$and": [{name: condition} for name, condition in one.items()]}, one)
    assert same({"$or": [one, {"$and": [one, other]}]}, one)


@given(NAMES, BEHIND_FIELDS, BEHIND_FIELDS, DOCUMENTS)
def test_and_and_or_are_the_same_before_a_field_and_behind_it(name, one, other, facts):
    for both in ("$and", "$or"):
        behind = parse_filter({name: {both: [one, other]}})
        before = parse_filter({both: [{name: one}, {name: other}]})
        assert behind.matches(facts) is before.matches(facts)


@given(FILTERS, FILTERS, DOCUMENTS)
def test_and_and_or_are_what_they_say(one, other, facts):
    first, second = parse_filter(one).matches(facts), parse_filter(other).matches(facts)
    assert parse_filter({"$and": [one, other]}).matches(facts) is (first and second)
    assert parse_filter({"$or": [one, other]}).matches(facts) is (first or second)


@given(FILTERS, DOCUMENTS)
def test_filters_agree_with_a_naive_interpreter(filter_, facts):
    assert parse_filter(filter_).matches(facts) is naive(filter_, [], facts)


def near(operand):
    """Draw what may be taken for an operand, or should be."""
    others = [operand, [operand], [[operand]], {"a": operand}, str(operand)]
    match operand:
        case int() | float():
            others += [bool(operand), operand + 1, operand - 1]
            if math.isfinite(operand):
                others += [float(operand), int(operand)]
        case str():
            others += [f"{operand}a", f"b{operand}", operand[:-1]]
        case list():
            others += [*operand, operand[1:], [*operand, 1], [*operand, [1]]]
        case dict():
            others += [{**operand, "z": 1}, dict(list(operand.items())[1:]), list(operand)]
    return SCALARS | st.sampled_from(others) | st.lists(st.sampled_from(others), max_size=3)


PLACES = {
    ("a",): lambda value: {"a": value},
    ("a", "b"): lambda value: {"a": {"b": value}, "b": 0},
    ("a\\.b",): lambda value: {"a.b": value, "a": {"b": 0}},
    ("a", "1", "b"): lambda value: {"a": [0, {"b": value}], "b": 0},
    ("b",): lambda value: {"a": value},
    ("a", "9" * 5000): lambda value: {"a": [value]},
}


@st.composite
def paths(draw, parts):
    """Names that lead to a place within attributes, as objects in objects or with dots."""
    cut = draw(st.integers(1, len(parts)))
    names = [".".join(["attributes", *parts[: cut - 1]]), ".".join(parts[cut - 1 :])]
    return draw(st.sampled_from([names, [".".join(names)], ["attributes", *parts]]))


@pytest.mark.parametrize("name", OPERANDS)
@given(st.data())
def test_each_comparison_agrees_near_its_operand(name, data):
    operand = data.draw(OPERANDS[name])
    wanted = data.draw(st.sampled_from(operand)) if name in {"$in", "$nin"} and operand else operand
    parts = data.draw(st.sampled_from(list(PLACES)))
    facts = {"attributes": PLACES[parts](data.draw(near(wanted)))}
    filter_ = {name: operand}
    for path in reversed(data.draw(paths(parts))):
        filter_ = {path: filter_}
    assert parse_filter(filter_).matches(facts) is naive(filter_, [], facts)


@given(st.sampled_from(OPERATORS), JSON, st.data())
def test_an_operator_takes_what_it_can_compare_and_refuses_the_rest(name, operand, data):
    filter_ = {"attributes.a": {name: operand}}
    facts = {"attributes": {"a": data.draw(near(operand))}}
    try:
        found = parse_filter(filter_)
    except FilterInvalid as error:
        refusal = error
    else:
        assert isinstance(found.matches(facts), bool)
        return
    for one in refusal.violations:
        assert one.pointer.startswith(f"/attributes.a/{name}")


@given(FILTERS, DOCUMENTS)
def test_where_a_condition_holds_one_of_its_demands_is_met(filter_, facts):
    for condition in parse_filter(filter_).conditions:
        if condition.demands is not None and condition.holds(facts):
            index = DemandIndex()
            for demand in condition.demands:
                index.add(demand, 7)
            assert any(7 in group for group in index.find(facts))


def at(value, pointer):
    """Return what stands at a place (RFC 6901); fails where there is nothing."""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        value = value[int(name) if isinstance(value, list) else name]
    return value


def objects_in(value, pointer):
    """Yield the places of objects that hold conditions, operands of comparisons left out."""
    if isinstance(value, dict):
        yield pointer
        for name, inner in value.items():
            if not name.startswith("$") or name in {"$and", "$or", "$not"}:
                yield from objects_in(inner, f"{pointer}/{escape(name)}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from objects_in(inner, f"{pointer}/{index}")


# The interpreter: one walk over the JSON, everything compared by its JSON text.


def typed(value):
    """JSON text in which equal values look equal: 1 and 1.0 alike, 1 and true not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(Fraction(value))
    if isinstance(value, list):
        return "[" + ",".join(map(typed, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{typed(value[k])}" for k in sorted(value)) + "}"
    return json.dumps(value)


def look(value, path):
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif (
            isinstance(value, list) and part.isdigit() and len(part) < 5 and int(part) < len(value)
        ):
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
                holds = naive(operand, [*path, *parts(name)], facts)
        if not holds:
            return False
    return True


def parts(name):
    return [one.replace("\\.", ".") for one in re.findall(r"(?:\\.|[^.])+", name)]


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
