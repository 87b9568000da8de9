"""``POST /documents``: what is taken, and what is refused by its place with nothing queued."""

from __future__ import annotations

import json
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

LONG = b"[" * 500 + b"]" * 500

BAD = {
    "nothing at all": (b"", 422, ""),
    "not JSON": (b"hello", 422, ""),
    "truncated": (b'{"content": "a', 422, ""),
    "a list": (b"[]", 422, ""),
    "invalid UTF-8": (b'{"content": "\xff\xfe"}', 422, ""),
    "no content": (b"{}", 422, "/content"),
    "empty content": (b'{"content": ""}', 422, "/content"),
    "null content": (b'{"content": null}', 422, "/content"),
    "a number as content": (b'{"content": 7}', 422, "/content"),
    "an unknown field": (b'{"content": "a", "colour": "red"}', 422, "/colour"),
    "NUL in content": (b'{"content": "a\\u0000b"}', 422, "/content"),
    "NUL in a topic": (b'{"content": "a", "topics": ["a", "b\\u0000"]}', 422, "/topics/1"),
    "NUL in a key": (b'{"content": "a", "keys": ["\\u0000"]}', 422, "/keys/0"),
    "NUL in an attribute": (
        b'{"content": "a", "attributes": {"x": {"y/z": ["\\u0000"]}}}',
        422,
        "/attributes/x/y~1z/0",
    ),
    "NUL in an attribute's name": (
        b'{"content": "a", "attributes": {"x": {"a\\u0000": 1}}}',
        422,
        "/attributes/x",
    ),
    "a lone surrogate in content": (b'{"content": "a\\ud800b"}', 422, "/content"),
    "a lone surrogate in a topic": (b'{"content": "a", "topics": ["\\udc00"]}', 422, "/topics/0"),
    "a lone surrogate in an attribute": (
        b'{"content": "a", "attributes": {"x": "\\ud800"}}',
        422,
        "/attributes/x",
    ),
    "a lone surrogate in a name": (
        b'{"content": "a", "attributes": {"\\ud800": 1}}',
        422,
        "/attributes",
    ),
    "too large an integer": (
        b'{"content": "a", "attributes": {"n": 99999999999999999999}}',
        422,
        "/attributes/n",
    ),
    "too large a number": (b'{"content": "a", "attributes": {"n": 1e400}}', 422, "/attributes/n"),
    "not a number": (b'{"content": "a", "attributes": {"n": NaN}}', 422, "/attributes/n"),
    "attributes that are a list": (b'{"content": "a", "attributes": []}', 422, "/attributes"),
    "too deep": (
        b'{"content": "a", "attributes": {"d": ' + b"[" * 60 + b"]" * 60 + b"}}",
        422,
        "/attributes/d",
    ),
    "far too deep": (b'{"content": "a", "attributes": {"d": ' + LONG + b"}}", 422, "/attributes/d"),
    "not a UUID": (b'{"content": "a", "id": "seven"}', 422, "/id"),
    "a negative version": (b'{"content": "a", "version": -1}', 422, "/version"),
    "too large a version": (b'{"content": "a", "version": 9223372036854775808}', 422, "/version"),
    "a version that is a boolean": (b'{"content": "a", "version": true}', 422, "/version"),
    "a version that is a float": (b'{"content": "a", "version": 1.0}', 422, "/version"),
    "a priority that is a boolean": (b'{"content": "a", "priority": false}', 422, "/priority"),
    "topics as text": (b'{"content": "a", "topics": "t"}', 422, "/topics"),
    "an unknown delivery": (b'{"content": "a", "delivery": "pigeon"}', 422, "/delivery"),
    "too many keys": (
        json.dumps({"content": "a", "keys": [str(n) for n in range(65)]}).encode(),
        422,
        "/keys",
    ),
    "too large a body": (json.dumps({"content": "secret " * 2_000}).encode(), 413, None),
}


@pytest.mark.parametrize(("body", "status", "place"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_by_its_place_and_nothing_is_queued(web, body, status, place):
    answer = web.post(body)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.body.decode()
    if place is not None:
        pointers = [one["pointer"] for one in problem["errors"]]
        assert any(one == place or (place and one.startswith(place)) for one in pointers), pointers
    assert web.queued() == {}


def test_a_body_without_announced_length_is_bounded_as_well(web):
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as client:
        client.sendall(b"POST /documents HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(10):
                client.sendall(b"7d0\r\n" + b"x" * 2_000 + b"\r\n")
        except OSError:
            pass
        assert b" 413 " in client.recv(200)
    assert web.queued() == {}


def test_a_document_is_accepted_with_its_place(web):
    answer = web.post({"content": "hello", "topics": ["a.b"], "attributes": {"n": 1}})
    assert answer.status == 202
    body = answer.json
    assert answer.headers["location"] == f"/documents/{body['id']}"
    assert uuid.UUID(body["id"]).version == 7
    del body["id"]
    assert body == {"content": "hello", "topics": ["a.b"], "attributes": {"n": 1}}
    assert web.queued() == {"ingest": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/documents", b'{"content": "hello"}'),
        ("/documents/batch", b'[{"content": "hello"}]'),
        ("/v1/event", b'{"order": 7}'),
        ("/v1/batch", b'[{"order": 7}]'),
    ],
)
def test_a_byte_order_mark_before_json_is_passed_over(web, path, body):
    assert web.ask("POST", path, b"\xef\xbb\xbf" + body).status in {200, 202}
    assert web.queued() == {"ingest": 1}


def test_an_id_of_the_clients_is_kept(web):
    one = str(uuid.uuid4())
    assert web.post({"content": "hello", "id": one}).json["id"] == one


def test_a_plain_curl_without_content_type_works(web):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert web.post({"content": "hello"}, form).status == 202


def test_content_can_be_left_out_of_the_answer(web):
    answer = web.post({"content": "hello", "version": 3}, {"Prefer": "return=minimal"})
    assert answer.headers["preference-applied"] == "return=minimal"
    assert answer.json.keys() == {"id", "version"}


def test_urgent_documents_have_a_lane_of_their_own(web):
    web.post({"content": "hello", "priority": 99})
    web.post({"content": "hello", "priority": 100})
    assert web.queued() == {"ingest.high": 1, "ingest": 1}


def test_many_at_once_are_all_accepted(web):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: web.post({"content": f"text {n}"}), range(200)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 200


def test_redis_away_is_503_with_retry_after_and_never_202(serve, database_url, make_valkey):
    server = make_valkey()
    web = serve(database_url=database_url, redis_url=server.url)
    assert web.post({"content": "before"}).status == 202
    server.kill()
    answer = web.post({"content": "while it is away"})
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json["code"] == "queue_unavailable"
    assert web.ask("GET", "/readyz").status == 503
    server.start()
    assert web.post({"content": "after"}).status == 202


def test_postgres_away_does_not_close_the_door(serve, redis_url, make_postgres):
    server = make_postgres()
    web = serve(database_url=server.url, redis_url=redis_url)
    server.kill()
    assert web.post({"content": "kept"}).status == 202
    answer = web.ask("GET", f"/documents/{uuid.uuid4()}")
    assert (answer.status, answer.json["code"]) == (503, "database_unavailable")
    assert "postgres" in web.ask("GET", "/readyz").json["problems"]


def test_a_replica_is_not_ready(serve, database_url, make_valkey):
    server = make_valkey()
    web = serve(database_url=database_url, redis_url=server.url)
    assert web.ask("GET", "/readyz").status == 200
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
    assert web.post({"content": "x"}).status == 503
    answer = web.ask("GET", "/readyz")
    assert (answer.status, list(answer.json["problems"])) == (503, ["redis"])
