"""``POST /documents/batch``: all documents or none; ``GET /batches/{id}``."""

from __future__ import annotations

import json
import os
import threading
import uuid

import pytest
import redis

from app.api.bodies import SLICE_BYTES
from app.queue.messages import FastEncoder
from app.services import batches
from tests.acceptance.conftest import until


def post(web, value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return web.ask("POST", "/documents/batch", data)


def queued_documents(web, lane="ingest"):
    client = redis.Redis.from_url(web.settings.redis_url)
    messages = [json.loads(one) for one in client.hgetall(f"docyard:{lane}.msgs").values()]
    client.close()
    messages.sort(key=lambda one: one["kwargs"]["seq"])
    return [document for one in messages for document in one["kwargs"]["documents"]]


def test_a_batch_is_queued_whole_and_in_order_and_answered_with_its_ids(web):
    mine = str(uuid.uuid4())
    sent = [
        {"content": "näme 1", "topics": ["a.b"]},
        {"content": "2", "id": mine, "version": 3, "attributes": {"a": [1, {"b": None}]}},
        {"content": "3", "priority": "2000"},
    ]
    answer = post(web, sent)
    assert answer.status == 202
    body = answer.json
    assert body["accepted"] == 3
    assert body["ids"][1] == mine
    assert body["replaced"] == []
    assert answer.headers["location"] == f"/batches/{body['id']}"
    sent[2]["priority"] = 2000
    assert queued_documents(web) == [
        {**document, "id": one} for document, one in zip(sent, body["ids"], strict=True)
    ]
    found = web.ask("GET", answer.headers["location"])
    assert found.status == 200
    assert {name: found.json[name] for name in ("intake", "accepted", "queued", "stored")} == {
        "intake": "complete",
        "accepted": 3,
        "queued": 3,
        "stored": 0,
    }


def test_a_batch_of_many_chunks_is_one_append(web):
    answer = post(web, [{"content": f"text {n}"} for n in range(10_000)])
    assert answer.status == 202
    assert len(answer.json["ids"]) == 10_000
    assert web.queued() == {"ingest": 20}


def test_of_the_same_id_twice_the_last_wins_and_the_answer_says_so(web):
    one = str(uuid.uuid4())
    sent = [{"id": one, "content": "old"}, {"content": "x"}, {"id": one, "content": "new"}]
    assert post(web, sent).json["replaced"] == [0]


def test_a_batch_goes_in_the_lane_of_its_least_urgent_document(web):
    post(web, [{"content": "a", "priority": 1}, {"content": "b", "priority": 99}])
    assert web.queued() == {"ingest.high": 1}
    post(web, [{"content": "a", "priority": 1}, {"content": "b"}])
    assert web.queued() == {"ingest.high": 1, "ingest": 1}


BAD = {
    "nothing": (b"", 422, ""),
    "an object": (b'{"content": "a"}', 422, ""),
    "an empty array": (b"[]", 422, ""),
    "truncated": (b'[{"content": "a"}, {"content": "b', 422, ""),
    "no end": (b'[{"content": "a"}', 422, ""),
    "something behind": (b'[{"content": "a"}] x', 422, ""),
    "an element too large": (
        b'[{"content": "a"}, {"content": "' + b"x" * 10_000 + b'"}]',
        422,
        "/1",
    ),
    "a number among documents": (b'[{"content": "a"}, 7]', 422, "/1"),
    "an array among documents": (b'[[], {"content": "a"}]', 422, "/0"),
    "a bad document": (b'[{"content": "a"}, {"content": ""}]', 422, "/1/content"),
    "a bad place deep inside": (
        b'[{"content": "a", "attributes": {"x": ["\\u0000"]}}]',
        422,
        "/0/attributes/x/0",
    ),
    "invalid UTF-8": (b'[{"content": "a"}, {"content": "\xff"}]', 422, "/1"),
    "missing comma": (b'[{"content": "a"} {"content": "b"}]', 422, "/0"),
    "a trailing comma": (b'[{"content": "a"},]', 422, ""),
    "too deep": (b"[" * 200_000, 422, ""),
}


@pytest.mark.parametrize("case", BAD)
def test_one_bad_element_refuses_the_batch_by_its_index(web, case):
    body, status, place = BAD[case]
    answer = post(web, body)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["errors"][0]["pointer"] == place
    assert web.queued() == {}


def test_every_bad_element_is_named(web):
    answer = post(web, [{"content": ""}, {"content": "a"}, {"colour": "red"}])
    places = [one["pointer"] for one in answer.json["errors"]]
    assert places == ["/0/content", "/2/content", "/2/colour"]


def test_too_many_elements_are_sent_to_the_bulk_route(web):
    answer = post(web, b"[" + b'{"content":"a"},' * 99_999 + b'{"content":"a"}]')
    assert answer.status == 413
    assert answer.json["code"] == "batch_too_long"
    assert "/documents/bulk" in answer.json["detail"]
    assert web.queued() == {}


def test_too_many_bytes_are_sent_to_the_bulk_route_before_they_are_read(web):
    answer = web.ask(
        "POST", "/documents/batch", b"[", {"Content-Length": str(web.settings.max_batch_bytes + 1)}
    )
    assert answer.status == 413
    assert "/documents/bulk" in answer.json["detail"]


def test_a_full_lane_refuses_the_whole_batch(serve, database_url, redis_url):
    web = serve(database_url=database_url, redis_url=redis_url, high_water_mark=1)
    assert post(web, [{"content": "a"}]).status == 202
    answer = post(web, [{"content": "b"}, {"content": "c"}])
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert web.queued() == {"ingest": 1}


def test_an_unknown_batch_is_not_found(web):
    answer = web.ask("GET", f"/batches/{uuid.uuid4()}")
    assert answer.status == 404
    assert answer.json["code"] == "batch_not_found"
    assert web.ask("GET", "/batches/seven").status == 422


@pytest.mark.parametrize("twin", ["NaN", "-Infinity", "1e999", "9" * 400], ids=lambda one: one[:9])
@pytest.mark.parametrize("members", ['"content": %s,', '"attributes": {"a": %s, "a": 1},'])
def test_what_no_worker_can_read_does_not_hide_behind_a_second_member_of_its_name(
    web, members, twin
):
    poison = '{%s "content": "poison"}' % (members % twin)
    sent = ['{"content": "before"}', poison, '{"content": "behind"}']
    assert web.ask("POST", "/documents/batch", f"[{','.join(sent)}]").status == 202
    assert web.ask("POST", "/documents/bulk", "\n".join(sent)).status == 202
    client = redis.Redis.from_url(web.settings.redis_url)
    bodies = [*client.hvals("docyard:ingest.msgs"), *client.hvals("docyard:ingest.bulk.msgs")]
    client.close()
    # As workers read them.
    chunks = [FastEncoder().decode(body)["kwargs"]["documents"] for body in bodies]
    assert [[one["content"] for one in chunk] for chunk in chunks] == [
        ["before", "poison", "behind"]
    ] * 2


def test_those_who_wait_for_postgres_keep_no_large_document_waiting(
    serve, database_url, redis_url, monkeypatch
):
    web = serve(database_url=database_url, redis_url=redis_url)
    answering, asked, answered = threading.Event(), [], []

    def counts(*_):
        asked.append(1)
        answered.append(answering.wait(20))
        return {}

    monkeypatch.setattr(batches, "_counts", counts)
    one = f"/batches/{uuid.uuid4()}"
    # As many as the loop's own threads.
    waiting = [
        threading.Thread(target=web.ask, args=("GET", one))
        for _ in range(min(32, (os.cpu_count() or 1) + 4))
    ]
    for thread in waiting:
        thread.start()
    assert until(lambda: len(asked) == len(waiting))
    posted = post(web, [{"content": "x" * SLICE_BYTES}])
    before = list(answered)
    answering.set()
    for thread in waiting:
        thread.join(20)
    assert (posted.status, before) == (202, [])
