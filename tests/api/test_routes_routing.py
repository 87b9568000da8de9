"""What destinations take, over HTTP."""

from __future__ import annotations

import json
import uuid

import pytest

from app.domain.documents import DEFAULT_TENANT
from app.storage import destinations
from app.storage.engine import make_engine, transaction
from tests.api.test_routes import JSON, create

WANTED = {
    "topics": ["sensor.*", "**.alarm"],
    "categories": ["sci.space", "sci.med"],
    "min_confidence": 0.8,
    "uncertain": True,
    "filter": {"attributes.size": {"$lt": 1e300}, "$not": {"attributes.customer.tier": "gold"}},
}


def test_what_a_destination_takes_is_kept_as_it_was_given(web):
    created = create(web, **WANTED)
    assert created.status == 201
    for answer in (created, web.ask("GET", created.headers["location"])):
        assert {name: answer.json[name] for name in WANTED} == WANTED
    (listed,) = web.ask("GET", "/destinations").json["items"]
    assert {name: listed[name] for name in WANTED} == WANTED


def test_a_destination_takes_everything_unless_it_says_otherwise(web):
    create(web)
    (listed,) = web.ask("GET", "/destinations").json["items"]
    assert {name: listed[name] for name in WANTED} == {
        "topics": [],
        "categories": [],
        "min_confidence": None,
        "uncertain": False,
        "filter": None,
    }


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"topics": ["fine", "sensor*"]}, ["/topics/1"]),
        ({"topics": ["a..b"]}, ["/topics/0"]),
        ({"topics": "a"}, ["/topics"]),
        ({"topics": ["a"] * 101}, ["/topics"]),
        ({"categories": [""]}, ["/categories/0"]),
        ({"min_confidence": 1.1}, ["/min_confidence"]),
        ({"uncertain": "perhaps"}, ["/uncertain"]),
        ({"filter": []}, ["/filter"]),
        ({"filter": {"category": {"$like": "x"}}}, ["/filter/category/$like"]),
        (
            {"filter": {"catgory": "x", "$or": [{"confidence": {"$gt": None}}]}},
            ["/filter/catgory", "/filter/$or/0/confidence/$gt"],
        ),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_by_its_place(web, fields, pointers):
    answer = create(web, **fields)
    assert answer.status == 422
    assert [one["pointer"] for one in answer.json["errors"]] == pointers
    assert web.ask("GET", "/destinations").json["items"] == []


def test_a_bad_filter_has_a_code_of_its_own(web):
    assert create(web, filter={"x": 1}).json["code"] == "filter_invalid"


def patch(web, path, **fields):
    return web.ask("PATCH", path, json.dumps(fields), JSON)


def test_only_what_is_sent_is_changed(web):
    created = create(web, description="Ours", **WANTED)
    path, before = created.headers["location"], created.json
    answer = patch(web, path, filter=None, min_confidence=None, topics=["x"], timeout_seconds=3)
    assert answer.status == 200
    expected = {
        **{name: value for name, value in before.items() if name != "secret"},
        "filter": None,
        "min_confidence": None,
        "topics": ["x"],
        "timeout_seconds": 3.0,
        "updated_at": answer.json["updated_at"],
    }
    assert answer.json == web.ask("GET", path).json == expected
    assert answer.json["updated_at"] > before["updated_at"]
    assert patch(web, path).json["topics"] == ["x"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"key": None}, "/key"),
        ({"url": None}, "/url"),
        ({"enabled": None}, "/enabled"),
        ({"topics": None}, "/topics"),
        ({"url": "ftp://example.com"}, "/url"),
        ({"filter": {"x": 1}}, "/filter/x"),
        ({"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "/secret"),
        ({"created_at": "now"}, "/created_at"),
    ],
    ids=str,
)
def test_a_bad_change_changes_nothing(web, fields, pointer):
    path = create(web).headers["location"]
    before = web.ask("GET", path).json
    answer = patch(web, path, description="new", **fields)
    assert answer.status == 422
    assert [one["pointer"] for one in answer.json["errors"]] == [pointer]
    assert web.ask("GET", path).json == before


def test_a_key_cannot_be_changed_to_one_that_is_taken(web):
    create(web, key="a")
    path = create(web, key="b").headers["location"]
    assert patch(web, path, key="a").json["code"] == "destination_key_taken"
    assert patch(web, path, key="c").json["key"] == "c"


def test_what_does_not_exist_cannot_be_changed(web):
    assert patch(web, f"/destinations/{uuid.uuid4()}", key="a").status == 404


def test_enabling_forgets_why_a_destination_was_disabled(web, database_url):
    created = create(web)
    path = created.headers["location"]
    engine = make_engine(database_url, application_name="test")
    with transaction(engine) as connection:
        destinations.disable(connection, DEFAULT_TENANT, uuid.UUID(created.json["id"]), "gone")
    engine.dispose()
    assert patch(web, path, description="still").json["disabled_reason"] == "gone"
    enabled = patch(web, path, enabled=True).json
    assert (enabled["enabled"], enabled["disabled_at"], enabled["disabled_reason"]) == (
        True,
        None,
        None,
    )
