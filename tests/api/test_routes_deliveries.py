"""``GET /documents/{id}/deliveries``: where did it go?"""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import text

from app.storage.engine import transaction
from tests.api.routing_parts import Store
from tests.api.test_routes import create

NIL = uuid.UUID(int=0)


@pytest.fixture
def store(database_url):
    made = Store(database_url)
    yield made
    made.engine.dispose()


def deliveries(web, document_id, query=""):
    return web.ask("GET", f"/documents/{document_id}/deliveries{query}")


def test_each_route_has_its_reason_and_what_became_of_it(web, store):
    ids = [create(web, key=key).json["id"] for key in ("a", "b")]
    one = store(keys=["a", "b"])
    with transaction(store.engine) as connection:
        connection.execute(
            text(
                "UPDATE deliveries SET state = 'failed', attempts = 3, last_status = 503,"
                " last_error = 'no', attempted_at = now(), ended_at = now()"
                " WHERE destination_id = :id"
            ),
            {"id": ids[0]},
        )
    answer = deliveries(web, one)
    assert answer.status == 200
    body = answer.json
    assert (body["document_id"], body["routes"], body["next_cursor"]) == (one, 2, None)
    assert body["explanation"] == "It goes to 2 destinations."
    b, a = body["items"]
    assert (a["destination_id"], a["destination_key"]) == (ids[0], "a")
    assert (a["reason"], a["state"], a["attempts"]) == ("key 'a' was named", "failed", 3)
    assert (a["last_status"], a["last_error"], a["due_at"]) == (503, "no", None)
    assert None not in (a["attempted_at"], a["ended_at"], a["created_at"])
    looked_up = web.ask("GET", f"/deliveries/{a['id']}").json
    assert (looked_up["destination_key"], looked_up["webhook_id"]) == ("a", a["webhook_id"])
    assert (b["state"], b["attempts"], b["last_status"], b["ended_at"]) == (
        "pending",
        0,
        None,
        None,
    )
    assert b["due_at"]


@pytest.mark.parametrize(
    ("fields", "explanation"),
    [
        ({"keys": ["x", "y"]}, "No enabled destination has one of its keys ('x', 'y')."),
        ({"topics": ["t"]}, "No enabled destination subscribes to one of its topics ('t')."),
        ({"delivery": "topic"}, "The document says how to choose, and names nothing to choose by."),
        ({}, "1 of 1 enabled destinations are reached, and none takes it."),
        ({"keys": ["picky"]}, "1 of 1 enabled destinations are reached, and none takes it."),
    ],
    ids=str,
)
def test_a_document_without_routes_says_why(web, store, fields, explanation):
    create(web, key="picky", categories=["sci.med"])
    create(web, key="off", enabled=False, topics=["t"])
    answer = deliveries(web, store(**fields)).json
    assert (answer["routes"], answer["items"]) == (0, [])
    assert answer["explanation"] == (
        f"No destination gets it. As destinations are now: {explanation}"
    )


def test_without_destinations_that_is_why(web, store):
    one = store()
    assert "There is no enabled destination." in deliveries(web, one).json["explanation"]
    create(web)
    later = deliveries(web, one).json
    assert later["routes"] == 0
    assert "No destination got it when it was stored." in later["explanation"]


def test_older_versions_come_behind_and_pages_hold_all_of_them_once(web, store):
    keys = {create(web, key=key).json["id"]: key for key in "abc"}
    one = str(uuid.uuid4())
    for version in (1, 2):
        store(id=one, version=version)
    path, seen = "?limit=2", []
    while path:
        answer = deliveries(web, one, path)
        assert answer.json["routes"] == 3
        seen += [
            (item["version"], keys[item["destination_id"]], item["state"])
            for item in answer.json["items"]
        ]
        link = answer.headers.get("link", "")
        assert bool(link) == bool(answer.json["next_cursor"])
        path = "?" + link.partition(">")[0].partition("?")[2] if link else ""
    assert seen == [
        *((2, key, "pending") for key in "cba"),
        *((1, key, "superseded") for key in "cba"),
    ]


def test_a_deleted_document_keeps_its_history(web, store):
    create(web)
    one = store()
    assert web.ask("DELETE", f"/documents/{one}").status == 204
    answer = deliveries(web, one).json
    assert (answer["routes"], answer["items"][0]["state"]) == (None, "cancelled")
    assert "deleted" in answer["explanation"]


def test_an_unknown_document_may_still_be_queued(web):
    answer = deliveries(web, uuid.uuid4())
    assert (answer.status, answer.headers["retry-after"]) == (404, "1")


@pytest.mark.parametrize("cursor", ["x", "1.2", f"-1.{NIL}.0", f"1.{NIL}.99999"])
def test_a_cursor_that_was_not_given_out_is_refused(web, store, cursor):
    answer = deliveries(web, store(), f"?cursor={cursor}")
    assert answer.status == 422
    assert [one["pointer"] for one in answer.json["errors"]] == ["/cursor"]
