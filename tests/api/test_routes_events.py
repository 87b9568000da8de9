"""``GET /events``, and destinations that subscribe."""

from __future__ import annotations

import uuid

import pytest

from app.domain.documents import DEFAULT_TENANT
from app.domain.operational_events import OperationalEventType as Type
from app.storage import operational_events
from app.storage.engine import make_engine, transaction
from tests.api.test_routes import JSON, create


@pytest.fixture
def emit(database_url):
    engine = make_engine(database_url, application_name="test")

    def run(event_type, destination_id):
        with transaction(engine) as connection:
            operational_events.emit(
                connection, DEFAULT_TENANT, event_type, uuid.UUID(destination_id), {"reason": "x"}
            )

    yield run
    engine.dispose()


def test_events_are_listed_by_pages_and_filters(web, emit):
    a, b = (create(web, key=key).json["id"] for key in "ab")
    for one in (a, b, a):
        emit(Type.DESTINATION_FAILING, one)
    emit(Type.DESTINATION_DISABLED, b)
    path, seen = "/events?limit=3", []
    while path:
        answer = web.ask("GET", path)
        seen += [(item["type"], item["destination_id"]) for item in answer.json["items"]]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
        assert bool(path) == bool(answer.json["next_cursor"])
    failing = "destination.failing"
    assert seen == [("destination.disabled", b), (failing, a), (failing, b), (failing, a)]
    (one,) = web.ask("GET", f"/events?type={failing}&destination_id={b}").json["items"]
    assert one["data"] == {"destination_id": b, "destination_key": "b", "reason": "x"}
    assert web.ask("GET", "/events?type=nothing").status == 422


def test_a_destination_subscribes_and_says_so(web):
    made = create(web, events=["destination.*"], documents=False).json
    assert (made["events"], made["documents"]) == (["destination.*"], False)
    changed = web.ask("PATCH", f"/destinations/{made['id']}", b'{"events": ["*"]}', JSON).json
    assert (changed["events"], changed["documents"]) == (["*"], False)


def test_what_is_no_event_is_refused_with_what_there_is(web):
    answer = create(web, events=["*", "delivery.failed"])
    assert answer.status == 422
    (error,) = answer.json["errors"]
    assert error["pointer"] == "/events/1"
    assert "delivery.exhausted" in error["detail"]


def test_a_preview_says_that_a_destination_takes_events_alone(web):
    create(web, events=["*"], documents=False)
    body = b'{"category": "sci.space", "confidence": 0.9}'
    (other,) = web.ask("POST", "/routes/preview", body, JSON).json["others"]
    assert other["reason"] == "it takes operational events alone"
