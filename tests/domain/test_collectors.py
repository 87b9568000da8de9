"""What a collector is given and may ask for."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from app.collectors import Context, Error, Ok, collector
from app.domain.collectors import collector_id, is_collector
from app.domain.identifiers import new_id
from app.domain.payloads import content_of, payload_of, value_of
from app.storage.deliveries import DeliveryKey


class Order(BaseModel):
    number: int


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ("some text", "some text"),
        ({"a": [1, None]}, {"a": [1, None]}),
        ([1, 2], [1, 2]),
        ((1, 2), [1, 2]),
        (Order(number=7), {"number": 7}),
        (Point(x=1), {"x": 1}),
        ("{no JSON", "{no JSON"),
        (' {"a": 1} ', {"a": 1}),
        ("17", "17"),
    ],
    ids=repr,
)
def test_a_payload_comes_back_as_a_value(payload, value):
    assert value_of(content_of(payload)) == value


@pytest.mark.parametrize(
    ("payload", "error", "sentence"),
    [
        (5, TypeError, "not int"),
        (None, TypeError, "not NoneType"),
        (object(), TypeError, "not JSON serializable"),
        ("", ValueError, "is empty"),
        ("a\0b", ValueError, "contains a NUL"),
    ],
    ids=["a number", "nothing", "an object", "empty", "a NUL"],
)
def test_what_cannot_be_a_document_is_refused_at_once(payload, error, sentence):
    with pytest.raises(error, match=sentence):
        content_of(payload)


def due(**fields) -> SimpleNamespace:
    now = datetime.now(UTC)
    values = {
        "key": DeliveryKey(1, uuid.uuid4(), 5, collector_id(), 0),
        "version": 3,
        "attempts": 1,
        "event_type": None,
        "content": '{"a": 1}',
        "keys": None,
        "topics": None,
        "delivery": None,
        "priority": None,
        "category": None,
        "confidence": None,
        "model_version": None,
        "attributes": {"n": 1},
        "document_created_at": now,
        "document_updated_at": now,
        **fields,
    }
    return SimpleNamespace(**values)


@pytest.mark.parametrize(
    ("fields", "delivery"),
    [
        ({}, "broadcast"),
        ({"keys": ["a"]}, "key"),
        ({"topics": ["t"]}, "topic"),
        ({"keys": ["a"], "topics": ["t"]}, None),
        ({"keys": ["a"], "delivery": "broadcast"}, "broadcast"),
        ({"keys": [], "topics": []}, "broadcast"),
    ],
    ids=repr,
)
def test_the_way_of_delivery_is_as_sent_or_implied(fields, delivery):
    assert payload_of(due(**fields)).delivery == delivery


def test_a_payload_has_what_was_sent_and_what_the_model_said():
    plain = payload_of(due())
    assert (plain.value, plain.keys, plain.topics) == ({"a": 1}, [], [])
    assert (plain.priority, plain.prediction, plain.attempt) == (1000, None, 2)
    assert (plain.document.version, plain.document.seq) == (3, 5)
    full = payload_of(due(priority=0, category="c", confidence=0.5, model_version="m"))
    assert (full.priority, full.prediction.category, full.prediction.confidence) == (0, "c", 0.5)


@pytest.mark.parametrize(
    "wrong",
    [{"key": "a b"}, {"topics": ["a..b"]}, {"timeout_seconds": 0}, {"categories": [""]}],
    ids=repr,
)
def test_a_wrong_declaration_is_refused_where_it_stands(wrong):
    fields = {"key": "right", **wrong}

    async def function(payload, ctx):  # noqa: ARG001
        return Ok()

    with pytest.raises(ValueError, match="1 validation error"):
        collector(fields.pop("key"), **fields)(function)


def test_calls_outside_of_a_run_say_what_to_do():
    with pytest.raises(RuntimeError, match="use dispatch"):
        Context().call("a", {})


def test_retry_after_is_seconds_or_a_timedelta():
    assert Error("a", retry_after=5).retry_after_seconds == 5
    assert Error("a", retry_after=timedelta(minutes=2)).retry_after_seconds == 120
    assert Error("a").retry_after_seconds is None


def test_ids_tell_collectors_from_webhooks_and_keep_their_order():
    ids = [collector_id() for _ in range(100)]
    assert all(map(is_collector, ids))
    assert ids == sorted(ids)
    assert {one.version for one in ids} == {8}
    assert not any(is_collector(one) for one in (new_id(), uuid.uuid4(), uuid.uuid1()))
