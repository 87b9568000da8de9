"""``POST /routes/preview``: by id, with a category, or as text that a worker classifies."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from functools import partial

import pytest
import redis
import redis.asyncio

from app.domain.errors import WorkerSilent
from app.queue import questions
from app.queue.names import Keys
from app.queue.questions import Asker
from tests.api.routing_parts import Store
from tests.api.test_routes import JSON, create
from worker.planning import Planning
from worker.previews import Preview, Previewer, preview
from worker.router_host import RouterHost


@pytest.fixture
def store(database_url):
    made = Store(database_url)
    yield made
    made.engine.dispose()


@pytest.fixture
def answer_questions(store, redis_url):
    """Answer as an ingest worker does, without its process."""
    running = []
    client = redis.Redis.from_url(redis_url)

    def start(router=None):
        planning = None
        if router is not None:
            planning = Planning(
                engine=store.engine,
                destinations=store.parts.destinations,
                router=RouterHost(router),
                ring=lambda *_: None,
            )
        answer = partial(preview, Preview(model=store.model, planning=planning))
        previewer = Previewer(client, "docyard", answer, threading.Event(), every_seconds=0.01)
        previewer.start()
        running.append((previewer, planning))

    yield start
    for previewer, planning in running:
        previewer.stop()
        if planning is not None:
            planning.router.close()
    client.close()


def ask(web, query="", **fields):
    return web.ask("POST", f"/routes/preview{query}", json.dumps(fields), JSON)


def test_a_document_with_its_category_is_judged_without_a_worker(web):
    space = create(web, key="space", categories=["sci.space"], min_confidence=0.5).json
    med = create(web, key="med", categories=["sci.med"]).json
    answer = ask(web, category="sci.space", confidence=0.75)
    assert answer.status == 200
    assert answer.json == {
        "category": "sci.space",
        "confidence": 0.75,
        "explanation": None,
        "routes": [
            {
                "destination_id": space["id"],
                "destination_key": "space",
                "url": space["url"],
                "reason": "broadcast; category 'sci.space'; confidence 0.75, at least 0.5",
            }
        ],
        "others": [
            {
                "destination_id": med["id"],
                "destination_key": "med",
                "reason": "category 'sci.space' is not one of its categories",
            }
        ],
        "next_cursor": None,
    }
    assert ask(web, category="sci.space").json["confidence"] == 1.0
    nobody = ask(web, category="sci.space", keys=["x"], topics=["t"], attributes={"a": 1}).json
    assert nobody["routes"] == []
    assert nobody["explanation"].startswith("No enabled destination has one of its keys ('x')")


def test_a_stored_document_is_judged_by_what_is_stored(web, store):
    create(web, key="gold", filter={"attributes.tier": "gold", "confidence": {"$gt": 0.7}})
    create(web, key="other")
    one = store(keys=["gold"], attributes={"tier": "gold"})
    answer = ask(web, id=one).json
    assert (answer["category"], answer["confidence"]) == ("sci.space", 0.75)
    (route,) = answer["routes"]
    assert route["reason"] == "key 'gold' was named; its filter matches"
    assert [one["reason"] for one in answer["others"]] == ["its key 'other' is not named"]
    (delivery,) = web.ask("GET", f"/documents/{one}/deliveries").json["items"]
    assert delivery["reason"] == route["reason"]


def test_an_id_with_more_beside_it_is_a_document_that_is_given(web, store):
    create(web, filter={"id": {"$startsWith": "0000"}})
    one = ask(web, id=str(uuid.UUID(int=1)), category="x").json
    other = ask(web, id=store(), category="x").json
    assert (len(one["routes"]), len(other["routes"])) == (1, 0)


def test_text_is_classified_by_a_worker(web, store, answer_questions):
    create(web, key="space", categories=["sci.space"])
    answer_questions()
    answer = ask(web, content="The shuttle reached orbit.").json
    assert (answer["category"], answer["confidence"], len(answer["routes"])) == (
        "sci.space",
        0.75,
        1,
    )
    store.model.prediction = None
    unclassified = ask(web, content="The shuttle reached orbit.").json
    assert (unclassified["category"], unclassified["routes"]) == (None, [])
    assert unclassified["others"][0]["reason"] == "the document has no category"


@pytest.mark.parametrize("sign", ["", "\ud800"])
def test_text_that_the_model_cannot_take_is_refused(web, store, answer_questions, sign):
    def fails(_):
        raise ValueError(f"too strange{sign}")

    store.model.classify = fails
    answer_questions()
    answer = ask(web, content="x")
    assert answer.status == 422
    assert answer.json["errors"] == [
        {
            "pointer": "/content",
            "detail": f"cannot be classified: ValueError: too strange{'?' * len(sign)}",
        }
    ]


def test_without_a_worker_text_is_refused_and_nothing_is_left(web, redis_url, monkeypatch):
    monkeypatch.setattr("app.queue.questions.ANSWER_SECONDS", 0.2)
    answer = ask(web, content="x")
    assert (answer.status, answer.json["code"]) == (503, "worker_silent")
    assert answer.headers["retry-after"]
    client = redis.Redis.from_url(redis_url)
    assert [key for key in client.keys("docyard:*") if client.pttl(key) < 0] == []
    client.close()


class Deaf(redis.asyncio.Redis):
    """Swallows cancellations, as ``asyncio.wait_for`` does in Python 3.11 where it is too late."""

    async def getdel(self, name):  # noqa: ARG002  (its name in redis-py)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return


def test_a_question_is_given_up_even_by_a_client_that_swallows_cancellations(
    redis_url, monkeypatch
):
    monkeypatch.setattr("app.queue.questions.ANSWER_SECONDS", 0.2)

    async def ask_deaf():
        async with Deaf.from_url(redis_url) as client:
            await asyncio.wait(
                [asking := asyncio.create_task(Asker(client, "d").ask({}))], timeout=5
            )
            return asking.exception()

    assert isinstance(asyncio.run(ask_deaf()), WorkerSilent)


def test_a_question_that_nobody_waits_for_is_passed_over(redis_url):
    client, keys = redis.Redis.from_url(redis_url), Keys("docyard")
    client.rpush(keys.questions, "expired", "fresh")
    client.set(keys.question("fresh"), b'{"a": 1}')
    assert questions.take(client, "docyard") == ("fresh", {"a": 1})
    assert questions.take(client, "docyard") is None
    assert client.keys("docyard:*") == []
    client.close()


def test_a_question_of_another_version_ends_nothing(web, redis_url, answer_questions):
    client, keys = redis.Redis.from_url(redis_url), Keys("docyard")
    asked = {"tenant_id": 1, "stored": None, "document": {"shade": "red"}, "classify": False}
    client.set(keys.question("newer"), json.dumps(asked), px=60_000)
    client.rpush(keys.questions, "newer")
    client.close()
    answer_questions()
    assert ask(web, content="The shuttle reached orbit.").status == 200


def test_questions_at_once_are_bounded(web, monkeypatch):
    monkeypatch.setattr("app.queue.questions.MOST_AT_ONCE", 0)
    answer = ask(web, content="x")
    assert (answer.status, answer.json["code"]) == (503, "unavailable")


class Mine:
    def route(self, document, prediction, destinations):
        if document.content == "raise":
            message = "boom"
            raise ValueError(message)
        if document.content == "nobody":
            return []
        reason = f"{prediction.category} {document.version} {document.attributes}"
        return [(destinations[0], reason), ("https://example.com/x", "a hook")]


@pytest.fixture
def routed_web(serve, database_url, redis_url, answer_questions):
    answer_questions(Mine())
    return serve(database_url=database_url, redis_url=redis_url, router="m:Mine")


def test_a_router_is_asked_where_there_is_one(routed_web, store):
    for key, enabled in (("a", True), ("b", True), ("off", False)):
        create(routed_web, key=key, enabled=enabled)
    one = store(version=7, attributes={"n": 1})
    for given, said in [
        ({"id": one}, "sci.space 7 {'n': 1}"),
        ({"category": "given"}, "given 0 None"),
        ({"content": "text", "version": 3}, "sci.space 3 None"),
    ]:
        answer = ask(routed_web, **given).json
        assert [(route["destination_key"], route["reason"]) for route in answer["routes"]] == [
            ("a", said),
            (None, "a hook"),
        ]
        assert answer["routes"][1]["url"] == "https://example.com/x"
        assert [(one["destination_key"], one["reason"]) for one in answer["others"]] == [
            ("b", "the router did not choose it"),
            ("off", "it is disabled"),
        ]
    nobody = ask(routed_web, content="nobody").json
    assert nobody["explanation"] == "The router m:Mine chose no destination."
    failed = ask(routed_web, content="raise")
    assert (failed.status, failed.json["code"]) == (500, "router_failed")
    assert failed.json["detail"] == "The router failed: ValueError: boom."


def test_those_who_do_not_get_it_come_in_pages(web):
    keys = [create(web, key=f"d{number}", categories=["no"]).json["key"] for number in range(5)]
    query, seen = "?limit=2", []
    while query:
        answer = ask(web, query, category="yes")
        seen += [one["destination_key"] for one in answer.json["others"]]
        link = answer.headers.get("link", "")
        assert bool(link) == bool(answer.json["next_cursor"])
        query = "?" + link.partition(">")[0].partition("?")[2] if link else ""
    assert seen == keys


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({}, ""),
        ({"topics": ["a"]}, ""),
        ({"confidence": 0.5, "content": "x"}, ""),
        ({"category": "x", "confidence": 2}, "/confidence"),
        ({"category": ""}, "/category"),
        ({"content": ""}, "/content"),
        ({"content": "\ud800"}, "/content"),
        ({"category": "x", "attributes": {"a": "\0"}}, "/attributes"),
        ({"id": "x"}, "/id"),
        ({"category": "x", "color": 1}, "/color"),
    ],
    ids=str,
)
def test_what_means_no_document_is_refused_by_its_place(web, fields, pointer):
    answer = ask(web, **fields)
    assert answer.status == 422
    assert [one["pointer"] for one in answer.json["errors"]] == [pointer]


def test_what_is_too_large_to_ask_is_refused(web):
    for fields, pointer in [
        ({"content": "x" * 100_001}, "/content"),
        ({"content": "x", "attributes": {"a": "x" * 600_000}}, ""),
    ]:
        answer = ask(web, **fields)
        assert answer.status == 422
        assert [one["pointer"] for one in answer.json["errors"]] == [pointer]


def test_an_unknown_id_may_still_be_queued(web):
    answer = ask(web, id=str(uuid.uuid4()))
    assert (answer.status, answer.json["code"]) == (404, "document_not_found")
