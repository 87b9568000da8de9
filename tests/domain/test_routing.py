"""Who gets a document, and the reasons given."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from app.domain.destinations import Destination
from app.domain.documents import DEFAULT_TENANT, DocumentInput
from app.domain.identifiers import new_id
from app.domain.predictions import Prediction
from app.domain.routing import Route, plan_routes

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def make(key="a", **fields):
    return Destination(
        tenant_id=DEFAULT_TENANT,
        id=new_id(),
        key=key,
        url="https://example.com/hook",
        description=None,
        secret="",
        enabled=fields.pop("enabled", True),
        timeout_seconds=15,
        created_at=NOW,
        updated_at=NOW,
        **fields,
    )


def document(**fields):
    return DocumentInput(content="x", **fields)


def keys_of(routes, destinations):
    by_id = {one.id: one.key for one in destinations}
    return [by_id[route.destination_id] for route in routes]


def test_broadcast_reaches_everybody_and_says_so():
    destinations = [make("a"), make("b", topics=("t",))]
    routes = plan_routes(document(), Prediction("c", 0.9, "m"), destinations)
    assert routes == [Route(one.id, "broadcast") for one in destinations]


def test_nobody_to_route_to_is_a_fine_answer():
    assert plan_routes(document(), None, []) == []


@pytest.mark.parametrize("mode", ["key", None])
def test_keys_reach_the_destinations_that_they_name(mode):
    a, b = make("a"), make("b")
    found = plan_routes(document(delivery=mode, keys=["b", "c"]), None, [a, b])
    assert found == [Route(b.id, "key 'b' was named")]


@pytest.mark.parametrize("mode", ["topic", None])
def test_topics_reach_the_destinations_that_subscribe_to_them(mode):
    a, b = make("a", topics=("x", "s.*")), make("b", topics=("s.**.x",))
    given = document(delivery=mode, topics=["y", "s.t"])
    assert plan_routes(given, None, [a, b, make("c")]) == [Route(a.id, "topic 's.t' fits 's.*'")]


def test_keys_and_topics_together_reach_either():
    destinations = [make("a", topics=("t",)), make("b"), make("c", topics=("t",)), make("d")]
    found = plan_routes(document(keys=["b", "c"], topics=["t"]), None, destinations)
    assert [(one, route.reason) for one, route in zip("abc", found, strict=True)] == [
        ("a", "topic 't' fits 't'"),
        ("b", "key 'b' was named"),
        ("c", "key 'c' was named"),
    ]
    assert keys_of(found, destinations) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("fields", "reached"),
    [
        ({"delivery": "broadcast", "keys": ["a"], "topics": ["t"]}, ["a", "b", "c"]),
        ({"delivery": "key", "keys": ["a"], "topics": ["t"]}, ["a"]),
        ({"delivery": "topic", "keys": ["a"], "topics": ["t"]}, ["b"]),
        ({"delivery": "key"}, []),
        ({"delivery": "key", "keys": []}, []),
        ({"delivery": "topic", "topics": []}, []),
        ({"keys": [], "topics": []}, ["a", "b", "c"]),
        ({"keys": ["nobody"]}, []),
        ({"topics": ["nothing"]}, []),
        ({"keys": ["nobody"], "topics": ["t"]}, ["b"]),
    ],
)
def test_a_mode_that_was_said_goes_before_what_is_implied(fields, reached):
    destinations = [make("a"), make("b", topics=("t",)), make("c")]
    assert keys_of(plan_routes(document(**fields), None, destinations), destinations) == reached


def test_the_first_topic_that_fits_is_the_reason_and_one_route_is_enough():
    a = make("a", topics=("s.*", "**"))
    (route,) = plan_routes(document(topics=["s.t", "u"]), None, [a])
    assert route.reason.startswith("topic 's.t' fits ")
