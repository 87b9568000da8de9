"""``/deliveries``: finding them, looking into one, and planning ended ones anew."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from sqlalchemy import text

from app.domain.attempts import Trace
from app.domain.deliveries import AttemptRecord, DeliveryState, OutcomeKind
from app.domain.documents import DEFAULT_TENANT
from app.storage import attempts, replays
from app.storage.deliveries import DeliveryKey, DeliveryResult
from app.storage.engine import transaction
from tests.api.routing_parts import Store
from tests.api.test_routes import JSON, create

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def store(database_url):
    made = Store(database_url)
    yield made
    made.engine.dispose()


@pytest.fixture
def fail(store):
    """Let deliveries of a document have failed."""

    def run(document_id, state="failed"):
        with transaction(store.engine) as connection:
            connection.execute(
                text(
                    "UPDATE deliveries SET state = :state, attempts = 2, last_status = 503,"
                    " last_error = 'HTTP 503 Service Unavailable: no luck', attempted_at = now(),"
                    " ended_at = now() - interval '1 s' WHERE document_id = :id"
                ),
                {"id": document_id, "state": state},
            )

    return run


def ask(web, path="", method="GET", **body):
    return web.ask(method, f"/deliveries{path}", json.dumps(body) if body else None, JSON)


def test_what_was_not_delivered_is_one_question(web, store, fail):
    create(web)
    failed, delivered, waiting = (store() for _ in range(3))
    fail(failed)
    fail(delivered, "delivered")
    found = ask(web, "?state=undelivered").json
    assert [one["document_id"] for one in found["items"]] == [waiting, failed]
    one = found["items"][1]
    assert (one["state"], one["attempts"], one["last_status"]) == ("failed", 2, 503)
    assert (one["destination_key"], one["event_type"], one["due_at"]) == ("archive", None, None)
    assert one["id"].startswith("dlv_")
    assert one["webhook_id"].startswith(f"msg_{uuid.UUID(failed).hex}_")
    several = ask(web, "?state=failed&state=delivered").json["items"]
    assert [one["document_id"] for one in several] == [delivered, failed]


def test_filters_find_by_what_people_have_in_hand(web, store, fail):
    ids = {key: create(web, key=key).json["id"] for key in "ab"}
    one, other = store(), store()
    fail(one)

    def documents(query):
        return {item["document_id"] for item in ask(web, f"?{query}").json["items"]}

    (delivery,) = ask(web, f"?document_id={one}&destination_key=a").json["items"]
    assert delivery["destination_id"] == ids["a"]
    by_webhook = ask(web, f"?webhook_id={delivery['webhook_id']}").json["items"]
    assert {item["destination_key"] for item in by_webhook} == {"a", "b"}
    assert documents(f"destination_id={ids['b']}") == {one, other}
    assert documents("status=503&error=no%20luck") == {one}
    assert documents("error=timeout") == set()
    tomorrow = quote((datetime.now(UTC) + timedelta(days=1)).isoformat())
    assert documents(f"since={tomorrow}") == set()
    assert documents(f"until={tomorrow}") == {one, other}


def test_pages_lead_on_with_the_same_filter(web, store):
    for key in "abc":
        create(web, key=key)
    store(), store()
    path, seen = "/deliveries?limit=2&destination_key=b&state=open", []
    while path:
        answer = web.ask("GET", path)
        seen += answer.json["items"]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
        assert bool(path) == bool(answer.json["next_cursor"])
    assert [one["destination_key"] for one in seen] == ["b", "b"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("state=lost", "/state/0"),
        ("webhook_id=msg_1", "/webhook_id"),
        ("cursor=x", "/cursor"),
        ("destination_key=nobody", "/destination_key"),
        ("since=yesterday", "/since"),
        ("since=2026-11-21T10:00:00", "/since"),
        ("destination=a", "/destination"),
        ("error=%00", "/error"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_its_place(web, query, pointer):
    answer = ask(web, f"?{query}")
    assert answer.status == 422
    assert [one["pointer"] for one in answer.json["errors"]] == [pointer]


def test_a_delivery_is_shown_with_every_attempt(web, store):
    create(web)
    document = store()
    (listed,) = ask(web, f"?document_id={document}").json["items"]
    with transaction(store.engine) as connection:
        (row,) = connection.execute(text("SELECT * FROM deliveries"))
        key = DeliveryKey(DEFAULT_TENANT, row.document_id, row.seq, row.destination_id, 0)
        trace = Trace(
            connect_ms=1.25, wait_ms=2.5, total_ms=3.75, headers='{"a": "b"}', body="no luck"
        )
        result = DeliveryResult(
            key=key,
            state=DeliveryState.PENDING,
            attempts=1,
            due_at=None,
            status=503,
            error="HTTP 503",
            finished_at=NOW,
            attempt=AttemptRecord(started_at=NOW, kind=OutcomeKind.TEMPORARY, trace=trace),
        )
        attempts.write(connection, [result])
    found = ask(web, f"/{listed['id']}").json
    log = found.pop("attempt_log")
    assert found == listed
    assert log == ask(web, f"/{listed['id']}/attempts").json["items"]
    (one,) = log
    assert one == {
        "number": 1,
        "started_at": "2026-11-21T12:00:00Z",
        "outcome": "temporary",
        "status": 503,
        "error": "HTTP 503",
        "reused": None,
        "name_ms": None,
        "connect_ms": 1.25,
        "tls_ms": None,
        "wait_ms": 2.5,
        "rest_ms": None,
        "total_ms": 3.75,
        "headers": {"a": "b"},
        "body": "no luck",
    }


def test_an_unknown_delivery_is_not_found_and_nonsense_is_refused(web, store):
    create(web)
    document = store()
    (listed,) = ask(web, f"?document_id={document}").json["items"]
    unknown = f"{listed['id'][:-1]}{'B' if listed['id'][-1] != 'B' else 'C'}"
    for path in (unknown, f"{unknown}/attempts"):
        answer = ask(web, f"/{path}")
        assert (answer.status, answer.json["code"]) == (404, "delivery_not_found")
    assert ask(web, f"/{unknown}/replay", "POST").status == 404
    assert ask(web, "/dlv_1").status == 422


def test_a_failed_delivery_is_replayed_with_a_new_webhook_id(web, store, fail):
    create(web)
    document = store()
    fail(document)
    (failed,) = ask(web, f"?document_id={document}").json["items"]
    answer = ask(web, f"/{failed['id']}/replay", "POST")
    assert answer.status == 202
    made = answer.json
    assert (made["state"], made["attempts"]) == ("pending", 0)
    assert made["webhook_id"] == f"{failed['webhook_id']}_1"
    assert answer.headers["location"] == f"/deliveries/{made['id']}"
    assert ask(web, f"/{made['id']}").json["document_id"] == document
    again = ask(web, f"/{failed['id']}/replay", "POST")
    assert (again.status, again.json["code"]) == (409, "delivery_not_replayable")
    assert "still pending" in again.json["detail"]


def test_a_superseded_delivery_is_not_replayed(web, store, fail):
    create(web)
    document = store()
    fail(document)
    (failed,) = ask(web, f"?document_id={document}").json["items"]
    store(id=document)
    answer = ask(web, f"/{failed['id']}/replay", "POST")
    assert answer.status == 409
    assert "newer version" in answer.json["detail"]
    assert web.ask("DELETE", f"/documents/{document}").status == 204
    assert "not stored" in ask(web, f"/{failed['id']}/replay", "POST").json["detail"]


def test_many_are_counted_first_and_replayed_behind_the_answer(web, store, fail):
    create(web, key="a")
    create(web, key="b")
    for _ in range(3):
        fail(store())
    counted = ask(web, "/replay", "POST", destination_key="a", dry_run=True)
    assert counted.status == 200
    assert counted.json == {"dry_run": True, "planned": 3, "skipped": 0, "complete": True}
    assert len(ask(web, "?state=pending").json["items"]) == 0
    answer = ask(web, "/replay", "POST", destination_key="a")
    assert (answer.status, answer.json["finished_at"]) == (202, None)
    place = answer.headers["location"]
    with transaction(store.engine) as connection:
        replays.advance(connection, DEFAULT_TENANT)
    done = web.ask("GET", place).json
    assert (done["planned"], done["skipped"], bool(done["finished_at"])) == (3, 0, True)
    pending = ask(web, "?state=pending").json["items"]
    assert {one["destination_key"] for one in pending} == {"a"}
    assert ask(web, f"/replays/{uuid.uuid4()}").json["code"] == "replay_not_found"


@pytest.mark.parametrize(
    "body", [{"state": ["pending"]}, {"state": []}, {"stat": ["failed"]}, {"status": "x"}]
)
def test_a_replay_by_nonsense_is_refused(web, body):
    assert ask(web, "/replay", "POST", **body).status == 422


def test_errors_come_in_groups(web, store, fail):
    create(web)
    for _ in range(2):
        fail(store())
    found = ask(web, "/errors").json
    assert found["complete"]
    (group,) = found["items"]
    assert (group["status"], group["error"]) == (503, "HTTP 503 Service Unavailable")
    assert (group["failed"], group["retrying"], group["destination_key"]) == (2, 0, "archive")
    assert group["last_error"].endswith("no luck")
    assert ask(web, f"/errors?destination_id={uuid.uuid4()}").json["items"] == []


@pytest.mark.parametrize("path", ["/deliveries", "/deliveries/errors", "/ledger"])
@pytest.mark.parametrize("since", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_the_ends_of_the_calendar_are_times_like_any_other(web, path, since):
    assert web.ask("GET", f"{path}?since={quote(since)}").status == 200
