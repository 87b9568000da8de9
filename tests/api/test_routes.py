"""The other routes: documents, destinations, health, access."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.api.access import Access
from app.api.documents import wait_preference
from app.domain.documents import DEFAULT_TENANT
from app.domain.health import Health, HealthRules, Observed
from app.domain.throttle import ThrottleState
from app.settings import Settings
from app.storage import health, leases
from app.storage.engine import make_engine, transaction

PROJECT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}


def create(web, **fields):
    body = {"key": "archive", "url": "http://example.com/hook", **fields}
    return web.ask("POST", "/destinations", json.dumps(body), JSON)


def test_an_unknown_document_may_still_be_queued(web):
    answer = web.ask("GET", f"/documents/{uuid.uuid4()}")
    assert (answer.status, answer.headers["retry-after"]) == (404, "1")
    assert "queued" in answer.json["detail"]
    assert web.ask("DELETE", f"/documents/{uuid.uuid4()}").status == 404
    assert web.ask("GET", "/documents/seven").json["errors"][0]["pointer"] == "/document_id"


def test_waiting_is_a_preference_that_is_applied(web):
    answer = web.ask("GET", f"/documents/{uuid.uuid4()}", headers={"Prefer": "wait=0"})
    assert answer.status == 404


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, None),
        ("return=minimal", None),
        ("wait=5", 5),
        ("return=minimal, wait=3", 3),
        ("Wait=900", 20),
        ("await=5", None),
        ("wait=", None),
    ],
)
def test_the_wait_preference_is_capped(prefer, seconds):
    assert wait_preference(prefer) == seconds


def test_a_destination_shows_its_secret_once(web):
    created = create(web)
    assert created.status == 201
    body = created.json
    assert body["secret"].startswith("whsec_")
    assert created.headers["location"] == f"/destinations/{body['id']}"
    read = web.ask("GET", created.headers["location"])
    assert read.status == 200
    assert read.json.keys() == body.keys() - {"secret"}
    assert web.ask("DELETE", created.headers["location"]).status == 204
    for method in ("GET", "DELETE"):
        assert web.ask(method, created.headers["location"]).status == 404


def test_a_key_is_taken_once(web):
    create(web)
    assert create(web).json["code"] == "destination_key_taken"


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"url": "ftp://example.com"}, "/url"),
        ({"url": "http://user:pass@example.com"}, "/url"),
        ({"url": "nonsense"}, "/url"),
        ({"url": ""}, "/url"),
        ({"key": "with space"}, "/key"),
        ({"key": ""}, "/key"),
        ({"secret": "short"}, "/secret"),
        ({"timeout_seconds": 0}, "/timeout_seconds"),
        ({"colour": "red"}, "/colour"),
        ({"description": "a\0b"}, "/description"),
    ],
)
def test_a_bad_destination_is_refused_by_its_place(web, fields, pointer):
    answer = create(web, **fields)
    assert answer.status == 422
    assert [one["pointer"] for one in answer.json["errors"]] == [pointer]
    assert web.ask("GET", "/destinations").json["items"] == []


def test_destinations_are_listed_in_pages(web):
    keys = [f"d{number}" for number in range(5)]
    for key in keys:
        create(web, key=key)
    path, seen = "/destinations?limit=2", []
    while path:
        answer = web.ask("GET", path)
        seen += [one["key"] for one in answer.json["items"]]
        link = answer.headers.get("link", "")
        assert bool(link) == bool(answer.json["next_cursor"])
        path = link.partition(">")[0].lstrip("<")
    assert seen == keys


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/documents", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("GET", "/destinations/", 404, "not_found"),
        ("POST", "/documents/", 404, "not_found"),
    ],
)
def test_unknown_routes_are_problems(web, method, path, status, code):
    answer = web.ask(method, path)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/destinations", "GET, POST"),
        (f"/destinations/{uuid.UUID(int=1)}", "DELETE, GET, PATCH"),
        (f"/documents/{uuid.UUID(int=1)}", "DELETE, GET"),
        ("/healthz", "GET, HEAD"),
        ("/v1/event", "POST"),
    ],
)
def test_a_wrong_method_is_told_all_that_are_right(web, path, allowed):
    assert web.ask("PUT", path).headers["allow"] == allowed


@pytest.mark.parametrize(
    "body",
    [
        b'{"description": "caf\xe9"}',
        b'{"filter": ' + b"[" * 100_000,
        b'{"timeout_seconds": ' + b"9" * 5_000 + b"}",
    ],
    ids=["not UTF-8", "too deep", "too long a number"],
)
def test_a_body_that_cannot_be_read_is_invalid_input(web, body):
    answer = web.ask("POST", "/destinations", body, JSON)
    assert (answer.status, answer.json["code"]) == (422, "invalid_input")
    assert [one["pointer"] for one in answer.json["errors"]] == [""]
    assert "UTF-8" in answer.json["detail"]


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/x-www-form-urlencoded"}])
def test_a_body_that_does_not_say_that_it_is_json_is_told_so(web, headers):
    body = json.dumps({"key": "archive", "url": "http://example.com/hook"})
    answer = web.ask("POST", "/destinations", body, headers)
    assert answer.status == 422
    assert "Content-Type: application/json" in answer.json["detail"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"timeout_seconds": True}, "/timeout_seconds"),
        ({"enabled": "no"}, "/enabled"),
        ({"concurrency": {"min": True}}, "/concurrency/min"),
        ({"concurrency": {"min": 1.0}}, "/concurrency/min"),
        ({"retry": {"schedule_seconds": [True]}}, "/retry/schedule_seconds/0"),
        ({"batch": {"max_items": True}}, "/batch/max_items"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_place(web, fields, pointer):
    answer = create(web, **fields)
    assert answer.status == 422
    assert [one["pointer"] for one in answer.json["errors"]] == [pointer]


def test_health_readiness_and_front_page(web):
    assert web.ask("GET", "/healthz").json == {"status": "ok"}
    for path in ("/healthz", "/readyz"):
        asked = web.ask("HEAD", path)
        assert (asked.status, asked.body) == (200, b"")
    ready = web.ask("GET", "/readyz")
    assert (ready.status, ready.json["durability"]) == (200, "always")
    front = web.ask("GET", "/").json
    assert front["name"] == "docyard"
    assert front["counts"]["destinations"] == 0


def test_a_database_that_was_never_migrated_is_not_ready(serve, make_postgres, redis_url):
    web = serve(database_url=make_postgres().url, redis_url=redis_url)
    answer = web.ask("GET", "/readyz")
    assert answer.status == 503
    assert "migrate" in answer.json["problems"]["postgres"]
    answer = web.ask("GET", f"/documents/{uuid.uuid4()}")
    assert (answer.status, answer.json["code"]) == (503, "schema_behind")
    assert web.post({"content": "kept until it is"}).status == 202


def test_a_key_opens_everything_but_the_probes(serve, database_url, redis_url):
    web = serve(database_url=database_url, redis_url=redis_url, admin_api_key="k1")
    for headers in ({}, {"Authorization": "Bearer k2"}, {"Authorization": "k1"}):
        answer = web.post({"content": "a"}, headers)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert web.ask("GET", "/", headers=headers).status == 401
    assert web.queued() == {}
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert web.post({"content": "a"}, {"Authorization": f"{scheme} k1"}).status == 202
    assert web.ask("GET", "/healthz").status == 200
    assert web.ask("GET", "/readyz").status == 200


@pytest.mark.parametrize(
    ("server", "settings", "passes"),
    [
        (("127.0.0.1", 80), {}, True),
        (("::1", 80), {}, True),
        (("/run/web.sock", None), {}, True),
        (("10.0.0.7", 80), {}, False),
        (("10.0.0.7", 80), {"allow_anonymous": True}, True),
        (("10.0.0.7", 80), {"admin_api_key": "k"}, False),
    ],
)
def test_without_a_key_only_loopback_is_answered(server, settings, passes):
    reached = []

    async def inner(*_):
        reached.append(True)

    async def send(_):
        """Take the answer."""

    scope = {"type": "http", "path": "/", "headers": [], "server": server, "method": "GET"}
    asyncio.run(Access(inner, Settings(**settings))(scope, None, send))
    assert bool(reached) == passes


def serve_with(**environment):
    return subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_open_bind_without_a_key_refuses_to_start():
    done = serve_with(HOST="0.0.0.0")  # noqa: S104  (that is the point)
    assert done.returncode != 0
    assert "ADMIN_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_a_sentence_with_the_next_step():
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = serve_with(PORT=str(other.getsockname()[1]))
    assert done.returncode != 0
    assert "in use" in done.stderr
    assert "PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_destination_bounds_its_concurrency_and_its_rate(web):
    created = create(web, concurrency={"min": 2, "max": 8}, max_per_second=0.5)
    assert created.status == 201
    assert created.json["concurrency"] == {"min": 2, "max": 8, "limit": None, "reason": None}
    assert created.json["max_per_second"] == 0.5
    at = created.headers["location"]
    changed = web.ask(
        "PATCH", at, json.dumps({"concurrency": {"min": 3}, "max_per_second": None}), JSON
    )
    assert changed.json["max_per_second"] is None
    # The most is what the setting says where it is not given.
    assert changed.json["concurrency"] == {"min": 3, "max": 50, "limit": None, "reason": None}


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"concurrency": {"min": 0}}, "/concurrency/min"),
        ({"concurrency": {"max": 1001}}, "/concurrency/max"),
        ({"concurrency": {"min": 9, "max": 8}}, "/concurrency"),
        ({"concurrency": {"most": 8}}, "/concurrency/most"),
        ({"concurrency": None}, "/concurrency"),
        ({"max_per_second": 0}, "/max_per_second"),
        ({"max_per_second": 1e9}, "/max_per_second"),
        ({"max_per_second": 1e-9}, "/max_per_second"),
    ],
)
def test_bounds_that_make_no_sense_are_refused_by_their_place(web, fields, pointer):
    answer = create(web, **fields)
    assert answer.status == 422
    assert pointer in [one["pointer"] for one in answer.json["errors"]]


def test_a_destination_shows_the_limit_of_now_and_why(web, database_url):
    created = create(web).json
    engine = make_engine(database_url, application_name="test", pool_size=1)
    with transaction(engine) as connection:
        lease = leases.acquire(connection, DEFAULT_TENANT, uuid.UUID(created["id"]), "me", 15)
        state = ThrottleState(limit=7, reason="because", memory=None, debt_seconds=0)
        leases.renew(connection, lease, 15, state)
    engine.dispose()
    for shown in (
        web.ask("GET", f"/destinations/{created['id']}").json,
        web.ask("GET", "/destinations").json["items"][0],
    ):
        assert shown["concurrency"] == {"min": 1, "max": 50, "limit": 7, "reason": "because"}


def test_what_redis_promises_is_required_of_one_that_came_after_the_start(
    serve, database_url, make_valkey
):
    server = make_valkey()
    server.stop()
    web = serve(database_url=database_url, redis_url=server.url, require_durability="always")
    server.start(appendonly="no")
    refused = web.ask("POST", "/documents", b'{"content": "x"}')
    assert (refused.status, refused.json["code"]) == (503, "durability_insufficient")
    assert int(refused.headers["retry-after"]) > 0
    ready = web.ask("GET", "/readyz")
    assert (ready.status, ready.json["durability"]) == (503, "none")
    server.stop()
    server.start(appendonly="yes")
    assert web.ask("POST", "/documents", b'{"content": "x"}').status == 202


def test_readiness_warns_of_a_redis_that_may_evict(serve, database_url, make_valkey):
    server = make_valkey(maxmemory="30mb", maxmemory_policy="allkeys-lru")
    ready = serve(database_url=database_url, redis_url=server.url).ask("GET", "/readyz")
    assert ready.status == 200
    assert "allkeys-lru" in ready.json["warnings"]["redis"]


def test_a_destination_is_paused_and_resumed(web):
    created = create(web)
    at = created.headers["location"]
    paused = web.ask("POST", f"{at}/pause").json
    assert paused["paused_at"] == web.ask("POST", f"{at}/pause").json["paused_at"] is not None
    assert web.ask("GET", at).json["paused_at"] == paused["paused_at"]
    assert web.ask("POST", f"{at}/resume").json["paused_at"] is None
    assert web.ask("POST", f"{at}/resume").status == 200
    for verb in ("pause", "resume"):
        assert web.ask("POST", f"/destinations/{uuid.uuid4()}/{verb}").status == 404


def test_a_destination_has_a_schedule_of_its_own(web):
    rules = {"schedule_seconds": [1, 2.5], "max_age_seconds": 3600}
    created = create(web, retry=rules)
    assert created.json["retry"] == rules
    at = created.headers["location"]
    changed = web.ask("PATCH", at, json.dumps({"retry": {"schedule_seconds": []}}), JSON).json
    assert changed["retry"] == {"schedule_seconds": [], "max_age_seconds": None}
    usual = web.ask("PATCH", at, json.dumps({"retry": {}}), JSON).json
    assert usual["retry"] == {"schedule_seconds": None, "max_age_seconds": None}


@pytest.mark.parametrize(
    ("retry", "pointer"),
    [
        ({"schedule_seconds": [5, 0]}, "/retry/schedule_seconds/1"),
        ({"schedule_seconds": [1e9]}, "/retry/schedule_seconds/0"),
        ({"schedule_seconds": [1] * 51}, "/retry/schedule_seconds"),
        ({"max_age_seconds": 0}, "/retry/max_age_seconds"),
        ({"tries": 3}, "/retry/tries"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_by_its_place(web, retry, pointer):
    answer = create(web, retry=retry)
    assert answer.status == 422
    assert [one["pointer"] for one in answer.json["errors"]] == [pointer]


def test_enabling_resuming_and_moving_a_destination_begin_anew(web, database_url):
    created = create(web)
    at = created.headers["location"]
    engine = make_engine(database_url, application_name="test", pool_size=1)

    def fail():
        with transaction(engine) as connection:
            destination_id = uuid.UUID(created.json["id"])
            lease = leases.acquire(connection, DEFAULT_TENANT, destination_id, "me", 15)
            now = datetime.now(UTC)
            row = Health(failing_since=now, failures=3, last_error="HTTP 500")
            health.note(connection, lease, Observed(row), now=now, rules=HealthRules())
            leases.release(connection, lease)
        shown = web.ask("GET", at).json
        assert shown["health"].items() >= {"failures": 3, "last_error": "HTTP 500"}.items()
        return shown["status"]

    assert fail() == "failing"
    moved = web.ask("PATCH", at, b'{"url": "http://example.com/elsewhere"}', JSON).json
    assert (moved["status"], moved["health"]["failures"]) == ("active", 0)
    web.ask("PATCH", at, b'{"enabled": false}', JSON)
    assert fail() == "disabled"
    enabled = web.ask("PATCH", at, b'{"enabled": true}', JSON).json
    assert (enabled["status"], enabled["health"]["failing_since"]) == ("active", None)
    web.ask("POST", f"{at}/pause")
    assert fail() == "paused"
    assert web.ask("POST", f"{at}/resume").json["status"] == "active"
    engine.dispose()


def test_a_destination_has_a_queue_an_order_and_batches(web):
    batch = {"max_items": 5, "max_bytes": 2048, "max_wait_seconds": 0.5, "format": "ndjson"}
    created = create(web, queue="lifo", ordered=True, batch=batch)
    shown = {name: created.json[name] for name in ("queue", "ordered", "batch")}
    assert shown == {"queue": "lifo", "ordered": True, "batch": batch}
    at = created.headers["location"]
    changed = web.ask("PATCH", at, b'{"batch": {}, "queue": "priority"}', JSON).json
    usual = {"max_items": 100, "max_bytes": 1048576, "max_wait_seconds": 1.0, "format": "json"}
    assert (changed["queue"], changed["ordered"], changed["batch"]) == ("priority", True, usual)
    refused = web.ask("PATCH", at, b'{"body": "raw"}', JSON)
    assert (refused.status, refused.json["code"]) == (422, "destination_invalid")
    assert refused.json["errors"][0]["pointer"] == "/batch"
    assert web.ask("PATCH", at, b'{"body": "raw", "batch": null}', JSON).json["batch"] is None


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"queue": "random"}, "/queue"),
        ({"ordered": "perhaps"}, "/ordered"),
        ({"batch": {"max_items": 0}}, "/batch/max_items"),
        ({"batch": {"max_bytes": 1}}, "/batch/max_bytes"),
        ({"batch": {"max_wait_seconds": 61}}, "/batch/max_wait_seconds"),
        ({"batch": {"format": "xml"}}, "/batch/format"),
        ({"batch": {}, "body": "cloudevents-binary"}, "/batch"),
    ],
)
def test_a_queue_that_makes_no_sense_is_refused_by_its_place(web, fields, pointer):
    answer = create(web, **fields)
    assert answer.status == 422
    assert [one["pointer"] for one in answer.json["errors"]] == [pointer]


def test_a_destination_is_sent_a_test_like_any_other_delivery(web):
    created = create(web, documents=False)
    sent = web.ask("POST", f"{created.headers['location']}/test")
    assert sent.status == 202
    delivery = web.ask("GET", sent.headers["location"])
    assert delivery.json["id"] == sent.json["delivery_id"]
    assert (delivery.json["state"], delivery.json["event_type"]) == ("pending", "destination.test")
    (event,) = web.ask("GET", "/events?type=destination.test").json["items"]
    assert event["data"]["destination_key"] == "archive"
    assert web.ask("POST", f"/destinations/{uuid.uuid4()}/test").status == 404
    # There is nothing to subscribe to.
    assert create(web, key="other", events=["destination.test"]).status == 422
