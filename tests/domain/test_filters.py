"""The filter language, by example."""

from __future__ import annotations

import uuid

import pytest

from app.domain.errors import FilterInvalid
from app.domain.filters import MAX_CONDITIONS, parse_filter

ID = str(uuid.UUID(int=7))
FACTS = {
    "id": ID,
    "category": "sci.space",
    "confidence": 0.75,
    "topics": ["sensor.a", "sensor.b"],
    "attributes": {
        "customer": {"tier": "gold", "since": 2019, "name": None},
        "http.status": 200,
        "urgent": True,
        "count": 1,
        "empty": {},
        "tags": ["x", 1, None, ["deep"]],
        "items": [{"sku": "A1"}, {"sku": "B2"}],
    },
}


def passes(given, facts=FACTS):
    return parse_filter(given).matches(facts)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"id": ID},
        {"category": "sci.space"},
        {"category": {"$eq": "sci.space"}},
        {"category": {"$ne": "sci.med"}},
        {"category": {"$startsWith": "sci."}},
        {"category": {"$in": ["sci.med", "sci.space"]}},
        {"category": {"$nin": ["sci.med"]}},
        {"confidence": {"$gt": 0.7, "$lt": 0.8}},
        {"confidence": {"$gte": 0.75, "$lte": 0.75}},
        {"topics": "sensor.b"},
        {"topics": {"$startsWith": "sensor."}},
        {"topics": {"$eq": ["sensor.a", "sensor.b"]}},
        {"topics": {"$in": ["other", "sensor.a"]}},
        {"attributes.customer.tier": "gold"},
        {"attributes": {"customer": {"tier": "gold", "since": {"$lt": 2020}}}},
        {"attributes": {"customer.tier": "gold"}},
        {"attributes.http\\.status": {"$gte": 200}},
        {"attributes.count": 1.0},
        {"attributes.urgent": True},
        {"attributes.tags": "x"},
        {"attributes.tags": None},
        {"attributes.tags.0": "x"},
        {"attributes.tags": {"$eq": ["deep"]}},
        {"attributes.items.1.sku": "B2"},
        {"attributes.empty": {"$eq": {}}},
        {"attributes.customer.name": None},
        {"attributes.customer.name": {"$exists": True}},
        {"attributes.nowhere.at.all": None},
        {"attributes.nowhere": {"$exists": False}},
        {"attributes.nowhere": {"$ne": "x"}},
        {"$and": [{"category": "sci.space"}, {"confidence": {"$gt": 0}}]},
        {"$or": [{"category": "sci.med"}, {"confidence": {"$gt": 0}}]},
        {"$not": {"category": "sci.med"}},
        {"confidence": {"$or": [{"$lt": 0.1}, {"$gt": 0.7}]}},
        {"confidence": {"$not": {"$lt": 0.1}}},
        {"attributes": {"$exists": True}},
    ],
    ids=str,
)
def test_a_document_that_meets_its_conditions_passes(given):
    assert passes(given)
    assert parse_filter(given).mismatch(FACTS) is None
    if given:
        assert not passes({"$not": given})


@pytest.mark.parametrize(
    "given",
    [
        {"category": "Sci.space"},
        {"confidence": "0.75"},
        {"confidence": {"$gt": "0"}},
        {"category": {"$gt": 0}},
        {"attributes.urgent": 1},
        {"attributes.count": True},
        {"attributes.urgent": {"$gte": 0}},
        {"attributes.count": "1"},
        {"attributes.customer": {"$gt": 0}},
        {"attributes.customer": {"$startsWith": ""}},
        {"attributes.customer": {"$eq": {"tier": "gold"}}},
        {"attributes.customer.tier.x": "gold"},
        {"attributes.http.status": 200},
        {"attributes.tags": "deep"},
        {"attributes.tags.9": "x"},
        {"attributes.tags.-1": "x"},
        {"attributes.tags": {"$ne": "x"}},
        {"attributes.items.sku": "A1"},
        {"attributes.empty": {"$in": [{"a": 1}, []]}},
        {"attributes.nowhere": {"$lt": 5}},
        {"attributes.nowhere": {"$exists": True}},
        {"category": {"$in": []}},
        {"confidence": {"$gt": 0.7, "$lt": 0.75}},
    ],
    ids=str,
)
def test_a_document_that_does_not_meet_them_does_not(given):
    assert not passes(given)
    assert passes({"$not": given})


def test_what_a_document_does_not_have_equals_null():
    for field in ("id", "category", "confidence", "topics", "attributes"):
        assert passes({field: {"$eq": None, "$exists": False}}, {})
        assert not passes({field: None}, FACTS)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"category": "x", "confidence": {"$gt": 0.9}}, "/category"),
        ({"confidence": {"$gt": 0.5, "$lt": 0.6}}, "/confidence/$lt"),
        ({"attributes": {"customer": {"tier": {"$in": ["a"]}}}}, "/attributes/customer/tier/$in"),
        ({"$and": [{}, {"id": "x"}][1:]}, "/$and/0/id"),
        ({"$or": [{"id": "x"}, {"id": "y"}]}, "/$or"),
        ({"$not": {"id": ID}}, "/$not"),
        ({"attributes.a/b~c": 1}, "/attributes.a~1b~0c"),
    ],
)
def test_the_condition_that_fails_is_named(given, place):
    assert parse_filter(given).mismatch(FACTS) == place


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (None, ""),
        ([], ""),
        ("category", ""),
        ({"content": "x"}, "/content"),
        ({"catgory": "x"}, "/catgory"),
        ({"": "x"}, "/"),
        ({"attributes.": "x"}, "/attributes."),
        ({"attributes..a": "x"}, "/attributes..a"),
        ({"category.x": "x"}, "/category.x"),
        ({"topics": {"0": "x"}}, "/topics/0"),
        ({"category": {"$like": "x"}}, "/category/$like"),
        ({"$exists": True}, "/$exists"),
        ({"$eq": 1}, "/$eq"),
        ({"$not": 1}, "/$not"),
        ({"$not": {}}, "/$not"),
        ({"$and": {}}, "/$and"),
        ({"$or": []}, "/$or"),
        ({"$or": [{"id": "x"}, {}]}, "/$or/1"),
        ({"$or": [{"id": "x"}, 5]}, "/$or/1"),
        ({"category": {}}, "/category"),
        ({"category": ["a"]}, "/category"),
        ({"category": {"$in": "a"}}, "/category/$in"),
        ({"category": {"$nin": {"a": 1}}}, "/category/$nin"),
        ({"category": {"$gt": None}}, "/category/$gt"),
        ({"category": {"$lte": True}}, "/category/$lte"),
        ({"category": {"$startsWith": 1}}, "/category/$startsWith"),
        ({"category": {"$exists": 1}}, "/category/$exists"),
        ({"attributes": {"a": {"b": {"$gte": []}}}}, "/attributes/a/b/$gte"),
        ({"attributes.a": "\0"}, "/attributes.a"),
        ({"attributes.a": {"$gt": float("nan")}}, "/attributes.a/$gt"),
        ({"attributes.a": {"$lt": 2**64}}, "/attributes.a/$lt"),
        ({"attributes.a": "x" * 20_000}, ""),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_filter_that_means_nothing_is_refused_by_its_place(given, place):
    with pytest.raises(FilterInvalid) as caught:
        parse_filter(given)
    assert [one.pointer for one in caught.value.violations] == [place]


def test_every_fault_is_named_at_once_within_what_was_sent():
    with pytest.raises(FilterInvalid) as caught:
        parse_filter({"id": {"$gt": []}, "x": 1, "$or": [{"y": 1}]}, "/filter")
    places = [one.pointer for one in caught.value.violations]
    assert places == ["/filter/id/$gt", "/filter/x", "/filter/$or/0/y"]


def nested(levels):
    given = {"id": "x"}
    for _ in range(levels):
        given = {"$not": given}
    return given


def test_depth_and_number_of_conditions_are_bounded():
    parse_filter(nested(11))
    with pytest.raises(FilterInvalid, match="nested"):
        parse_filter(nested(12))
    parse_filter({"id": {"$and": [{"$ne": "x"}] * (MAX_CONDITIONS - 1)}})
    with pytest.raises(FilterInvalid, match="too many"):
        parse_filter({"id": {"$and": [{"$ne": "x"}] * MAX_CONDITIONS}})
