"""Operational events: stored, planned for who subscribes, read like any delivery."""

from __future__ import annotations

import orjson
import pytest
from sqlalchemy import text

from app.domain.documents import DEFAULT_TENANT
from app.domain.operational_events import ON_REQUEST, reason_of, subscription_fault
from app.domain.operational_events import OperationalEventType as Type
from app.storage import counters, destinations, operational_events
from app.storage.due import read_due
from app.storage.engine import transaction
from worker.attempts import payload_of


def emit(engine, event_type, about, data=None):
    with transaction(engine) as connection:
        return operational_events.emit(
            connection, DEFAULT_TENANT, event_type, about.id, data or {"n": 1}
        )


def due(engine, destination):
    with transaction(engine) as connection:
        page = read_due(
            connection,
            DEFAULT_TENANT,
            destination.id,
            max_rows=10,
            max_bytes=1 << 20,
        )
        return page.fresh


def test_an_event_is_planned_for_those_who_subscribe_and_are_not_its_subject(engine, make_target):
    subject = make_target("subject", events=["*"])
    everything = make_target("everything", events=["*"])
    family = make_target("family", events=["delivery.exhausted", "destination.*"])
    make_target("other", events=["delivery.exhausted"])
    make_target("none")
    make_target("off", events=["*"], enabled=False)
    planned = emit(engine, Type.DESTINATION_DISABLED, subject)
    assert planned == sorted([everything.id, family.id])
    assert due(engine, subject) == []
    (one,) = due(engine, family)
    assert (one.event_type, one.attempts, one.document_seq) == (
        "destination.disabled",
        0,
        one.key.seq,
    )
    with transaction(engine) as connection:
        assert counters.totals(connection, DEFAULT_TENANT)["deliveries.planned"] == 2
        reasons = connection.execute(text("SELECT reason FROM deliveries")).scalars()
        assert sorted(reasons) == ["subscribes to '*'", "subscribes to 'destination.*'"]


@pytest.mark.parametrize("body", ["envelope", "raw"])
def test_an_event_is_sent_in_its_envelope_whatever_the_body(engine, make_target, body):
    subject = make_target("subject")
    subscriber = make_target("subscriber", events=["destination.failing"], documents=False)
    emit(engine, Type.DESTINATION_FAILING, subject, {"reason": "HTTP 503"})
    (one,) = due(engine, subscriber)
    sent = orjson.loads(payload_of(one, body).body)
    assert (sent["type"], sent["id"]) == ("destination.failing", str(one.key.document_id))
    assert sent["timestamp"].endswith("Z")
    assert sent["data"] == {
        "destination_id": str(subject.id),
        "destination_key": "subject",
        "reason": "HTTP 503",
    }


def test_events_and_documents_wait_together(engine, make_target, make_document, store):
    subject, both = make_target("subject"), make_target("both", events=["*"])
    document = make_document("text")
    store(document, to=(both,))
    emit(engine, Type.DELIVERY_EXHAUSTED, subject)
    found = due(engine, both)
    assert [one.event_type for one in found] == [None, "delivery.exhausted"]
    assert found[0].content == "text"


def test_a_destination_without_documents_is_no_destination_of_documents(engine, make_target):
    make_target("operations", events=["*"], documents=False)
    wanted = make_target("wanted")
    with transaction(engine) as connection:
        table = destinations.DestinationCache().table(connection, DEFAULT_TENANT)
    assert [one.id for one in table.destinations] == [wanted.id]


def test_events_are_listed_the_newest_first(engine, make_target):
    subject, other = make_target("subject"), make_target("other")
    for about in (subject, other, subject):
        emit(engine, Type.DESTINATION_FAILING, about)
    emit(engine, Type.DESTINATION_RECOVERED, subject)

    def listed(**where):
        with transaction(engine) as connection:
            return operational_events.list_page(connection, DEFAULT_TENANT, limit=10, **where)

    everything = listed()
    assert [one.type for one in everything] == ["destination.recovered"] + [
        "destination.failing"
    ] * 3
    assert listed(after=everything[1].id) == everything[2:]
    assert [one.destination_id for one in listed(destination_id=other.id)] == [other.id]
    assert len(listed(event_type="destination.recovered")) == 1


def test_patterns_that_take_nothing_are_faults():
    types = [one for one in Type if one is not ON_REQUEST]
    assert [subscription_fault(one) for one in ("*", "destination.*", *types)] == [None] * 6
    for wrong in ("", "destination", "delivery.failed", "**", "destination.**", "*.failing"):
        assert "delivery.exhausted" in subscription_fault(wrong)


def test_the_most_special_pattern_is_the_reason():
    assert reason_of("delivery.exhausted", ["*", "delivery.*"]) == "subscribes to 'delivery.*'"
