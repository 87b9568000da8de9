"""What destinations take, over HTTP."""

from __future__ import annotations

import pytest

from tests.api.test_routes import create

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
