"""The ledger: sums that hold, and rows that are missed when somebody deletes them by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from sqlalchemy import text

from app.domain.deliveries import AttemptRecord, DeliveryState, OutcomeKind
from app.domain.documents import DEFAULT_TENANT
from app.queue.accepted import read_accepted
from app.queue.messages import Chunk
from app.storage import accepted, attempts, counters, deliveries, leases
from app.storage.deliveries import DeliveryKey, DeliveryResult
from app.storage.destinations import DestinationCache
from app.storage.documents import delete
from app.storage.engine import make_engine, transaction
from tests.worker.test_worker_parts import FakeModel, add_destination, rows
from worker.ingest import Ingest, ingest
from worker.isolation import IsolatedClassifier

PROJECT = Path(__file__).parents[2]
REFUSED = "refused"


@pytest.fixture
def engine(database_url):
    made = make_engine(database_url, application_name="test")
    yield made
    made.dispose()


@pytest.fixture
def client(redis_url):
    made = redis.Redis.from_url(redis_url)
    yield made
    made.close()


class Yard:
    """Takes in over HTTP and works the queue off in this process."""

    def __init__(self, web, engine, client) -> None:
        self.web, self.engine, self.client = web, engine, client
        self.lease = None
        self.parts = Ingest(
            engine=engine,
            model=FakeModel(usable=False),
            isolated=IsolatedClassifier(Path("nowhere")),
            destinations=DestinationCache(),
            ring=lambda *_: None,
            stopping=threading.Event(),
        )

    def post(self, *documents) -> list[str]:
        answer = self.web.ask("POST", "/documents/batch", json.dumps(documents))
        assert answer.status == 202, answer.body
        return answer.json["ids"]

    def work(self) -> None:
        for message_id, body in self.client.hgetall("docyard:ingest.msgs").items():
            fields = json.loads(body)["kwargs"]
            for document in fields["documents"]:
                if document["content"] == REFUSED:
                    # The door is stricter than Postgres; this came past another one.
                    document["attributes"] = {"n": "\0"}
            chunk = Chunk(
                tenant_id=fields["tenant_id"],
                chunk_id=uuid.UUID(fields["chunk_id"]),
                seq=fields["seq"],
                documents=fields["documents"],
            )
            ingest(self.parts, [chunk])
            with self.client.pipeline() as settle:
                settle.hincrby("docyard:queued", "ingest", -len(chunk.documents))
                settle.hdel("docyard:ingest.msgs", message_id)
                settle.lrem("docyard:ingest", 1, message_id)
                settle.execute()

    def ledger(self, query="") -> dict:
        answer = self.web.ask("GET", f"/ledger{query}")
        assert answer.status == 200, answer.body
        return answer.json

    def kinds(self) -> list[str]:
        return sorted({one["kind"] for one in self.ledger()["findings"]})

    def run(self, statement, **values) -> None:
        with transaction(self.engine) as connection:
            connection.execute(text(statement), values)

    def deliver(self, target, state=DeliveryState.DELIVERED) -> DeliveryKey:
        """End the first open delivery, with an attempt."""
        found = rows(
            self.engine,
            "SELECT tenant_id, document_id, seq, destination_id, generation FROM deliveries"  # noqa: S608  (an id of ours)
            f" WHERE state = 'pending' AND destination_id = '{target.id}' ORDER BY seq LIMIT 1",
        )
        key = DeliveryKey(*found[0])
        now = datetime.now(UTC)
        result = DeliveryResult(
            key=key,
            state=state,
            attempts=1,
            due_at=None,
            status=200,
            error=None,
            finished_at=now,
            attempt=AttemptRecord(started_at=now, kind=OutcomeKind.SUCCESS),
        )
        with transaction(self.engine) as connection:
            if self.lease is None:
                self.lease = leases.acquire(connection, DEFAULT_TENANT, target.id, "test", 60)
            deliveries.record(connection, self.lease, [result])
            attempts.write(connection, [result])
        return key


@pytest.fixture
def yard(web, engine, client):
    return Yard(web, engine, client)


def content(number=1):
    return [{"content": f"text {one}"} for one in range(number)]


def balanced(ledger) -> bool:
    documents = ledger["documents"]
    settled = ("stored", "stale", "rejected", "dead", "dropped", "queued")
    ends = ("delivered", "failed", "superseded", "cancelled", "open")
    return documents["queued_before"] + documents["accepted"] == sum(
        documents[name] for name in settled
    ) and all(
        one["open_before"] + one["planned"] == sum(one[name] for name in ends)
        for one in ledger["destinations"]
    )


def test_the_sums_hold_wherever_a_document_is(yard, engine, client):
    target = add_destination(engine, "a")
    first, second, *_ = yard.post(*content(4))
    ledger = yard.ledger()
    assert (ledger["documents"]["accepted"], ledger["documents"]["queued"]) == (4, 4)
    yard.work()
    # Half of the counts are written down, half are in Redis alone.
    with transaction(engine) as connection:
        accepted.note(connection, DEFAULT_TENANT, partial(read_accepted, client, "docyard"))
        counters.fold(connection, DEFAULT_TENANT)
    for state in (DeliveryState.DELIVERED, DeliveryState.FAILED):
        yard.deliver(target, state)
    yard.post({"id": first, "content": "again"}, {"content": REFUSED})
    yard.work()
    with transaction(engine) as connection:
        delete(connection, DEFAULT_TENANT, uuid.UUID(second))
    ledger = yard.ledger()
    documents = ledger["documents"]
    names = ("accepted", "stored", "rejected", "queued", "deleted")
    assert [documents[name] for name in names] == [6, 5, 1, 0, 1]
    assert (ledger["findings"], ledger["unchecked"], ledger["adds_up"]) == ([], [], True)
    assert balanced(ledger)
    # The same in pieces of time.
    hour = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    for query in (f"?since={hour}", f"?until={hour}", f"?since={later}"):
        assert balanced(yard.ledger(query)), query


def test_a_range_of_another_zone_begins_with_the_same_hour(yard, engine):
    yard.post(*content(3))
    yard.work()
    with transaction(engine) as connection:
        counters.fold(connection, DEFAULT_TENANT)
    # The hour in which they were stored: the next one may have begun by now.
    [(hour,)] = rows(engine, "SELECT DISTINCT hour FROM counters WHERE name = 'documents.stored'")
    now = hour + timedelta(minutes=42)
    # In which the hour has just begun, or nearly; another hour than that of UTC if it is half over.
    zones = [timezone(timedelta(minutes=-minutes)) for minutes in (0, now.minute, 30, 330)]
    found = [yard.ledger(f"?since={quote(now.astimezone(zone).isoformat())}") for zone in zones]
    assert [one["documents"]["stored"] for one in found] == [3] * len(zones)
    assert len({datetime.fromisoformat(one["since"]) for one in found}) == 1


def test_a_document_deleted_by_hand_is_named(yard, engine):
    add_destination(engine, "a")
    one, *_ = yard.post(*content(3))
    yard.work()
    yard.run("DELETE FROM documents WHERE id = :id", id=one)
    found = yard.ledger()["findings"]
    assert {"documents_missing", "document_missing"} <= {each["kind"] for each in found}
    named = [each["where"]["document_id"] for each in found if each["kind"] == "document_missing"]
    assert named == [one]
    # Its delivery is open and has nothing to deliver.
    assert "delivery_without_document" in {each["kind"] for each in found}


def test_a_document_that_went_nowhere_is_missed_all_the_same(yard):
    one, *_ = yard.post(*content(3))
    yard.work()
    assert yard.kinds() == []
    yard.run("DELETE FROM documents WHERE id = :id", id=one)
    (found,) = yard.ledger()["findings"]
    assert (found["kind"], found["count"]) == ("documents_missing", 1)


def test_an_open_delivery_deleted_by_hand_is_named_by_its_document(yard, engine):
    add_destination(engine, "a")
    one, *_ = yard.post(*content(3))
    yard.work()
    yard.run("DELETE FROM deliveries WHERE document_id = :id", id=one)
    found = {each["kind"]: each for each in yard.ledger()["findings"]}
    assert found.keys() == {
        "open_deliveries_differ",
        "deliveries_missing",
        "deliveries_missing_in_hour",
        "document_without_delivery",
    }
    assert found["document_without_delivery"]["where"]["document_id"] == one


def test_an_ended_delivery_deleted_by_hand_is_named_by_its_attempts(yard, engine):
    target = add_destination(engine, "a")
    yard.post(*content(3))
    yard.work()
    key = yard.deliver(target)
    yard.run("DELETE FROM deliveries WHERE document_id = :id", id=key.document_id)
    found = {each["kind"]: each for each in yard.ledger()["findings"]}
    assert found.keys() == {"deliveries_missing", "delivery_missing"}
    assert found["delivery_missing"]["where"]["document_id"] == str(key.document_id)


def test_a_rejected_document_deleted_by_hand_is_named_by_its_chunk(yard):
    yard.post(*content(2), {"content": REFUSED})
    yard.work()
    assert yard.kinds() == []
    (chunk_id,) = (one for (one,) in rows(yard.engine, "SELECT chunk_id FROM rejected_documents"))
    yard.run("DELETE FROM rejected_documents")
    found = {each["kind"]: each for each in yard.ledger()["findings"]}
    assert found.keys() == {"rejected_missing", "rejected_missing_in_chunk"}
    assert found["rejected_missing_in_chunk"]["where"] == {"chunk_id": str(chunk_id)}


def test_what_the_queue_has_lost_is_counted(yard, client):
    yard.post(*content(3))
    assert yard.kinds() == []
    client.delete("docyard:ingest", "docyard:ingest.msgs", "docyard:queued")
    (found,) = yard.ledger()["findings"]
    assert (found["kind"], found["count"]) == ("accepted_lost", 3)


def test_what_a_redis_forgot_stays_accepted(yard, engine, client):
    """Written down before it came back empty."""
    yard.post(*content(3))
    with transaction(engine) as connection:
        accepted.note(connection, DEFAULT_TENANT, partial(read_accepted, client, "docyard"))
    client.flushall()
    yard.post(*content(2))
    yard.work()
    (found,) = yard.ledger()["findings"]
    assert found["kind"] == "accepted_lost"
    with transaction(engine) as connection:
        accepted.note(connection, DEFAULT_TENANT, partial(read_accepted, client, "docyard"))
    yard.post(*content(2))
    yard.work()
    assert yard.ledger()["findings"][0]["count"] == found["count"]


def test_what_is_in_dead_letters_is_not_lost(yard, client):
    yard.post(*content(3))
    (body,) = client.hvals("docyard:ingest.msgs")
    client.delete("docyard:ingest", "docyard:ingest.msgs", "docyard:queued")
    client.hset("docyard:ingest.XQ.msgs", "m", body)
    assert yard.kinds() == []


def test_rows_that_cannot_be_as_they_are_are_named(yard, engine):
    target = add_destination(engine, "a")
    one, two = yard.post(*content(2))
    yard.work()
    yard.run("UPDATE documents SET seq = seq + 7 WHERE id = :id", id=one)
    yard.run(
        "INSERT INTO unplanned_documents (tenant_id, document_id, seq, retry_at)"
        " VALUES (1, :id, 1, now() - interval '1 day')",
        id=two,
    )
    yard.run(
        "UPDATE destinations SET deleted_at = now() - interval '1 hour' WHERE id = :id",
        id=target.id,
    )
    found = {each["kind"]: each for each in yard.ledger()["findings"]}
    assert found.keys() == {"order_lost", "document_not_routed", "open_of_deleted_destination"}
    assert found["order_lost"]["where"]["document_id"] == one


@pytest.mark.parametrize("state", ["delivered", "superseded", "cancelled"])
def test_a_failed_delivery_that_is_given_another_end_by_hand_is_missed(yard, engine, state):
    target = add_destination(engine, "a")
    yard.post(*content(3))
    yard.work()
    for end in (DeliveryState.DELIVERED, DeliveryState.FAILED):
        yard.deliver(target, end)
    assert yard.kinds() == []
    yard.run("UPDATE deliveries SET state = :state WHERE state = 'failed'", state=state)
    (found,) = yard.ledger()["findings"]
    assert (found["kind"], found["count"]) == ("failed_deliveries_differ", 1)
    assert found["where"] == {"destination_id": str(target.id)}


def test_open_deliveries_of_a_destination_deleted_by_hand_are_named(yard, engine):
    target = add_destination(engine, "a")
    yard.post(*content(2))
    yard.work()
    yard.run("DELETE FROM destinations WHERE id = :id", id=target.id)
    (found,) = yard.ledger()["findings"]
    assert found["kind"] == "open_of_deleted_destination"
    assert found["where"] == {"destination_id": str(target.id)}


def test_verify_says_the_same_and_exits_with_1(yard, database_url, redis_url):
    one, *_ = yard.post(*content(3))
    yard.work()

    def verify(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "app", "verify", *arguments],
            cwd=PROJECT,
            env={**os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url},
            capture_output=True,
            text=True,
            check=False,
        )

    good = verify()
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "Everything adds up.")
    yard.run("DELETE FROM documents WHERE id = :id", id=one)
    bad = verify("--json", "--since", "2026-01-01")
    assert (bad.returncode, json.loads(bad.stdout)["adds_up"]) == (1, False)


def test_a_busy_system_adds_up(yard, engine):
    """Looked at while documents come in and are worked off."""
    add_destination(engine, "a")
    done = threading.Event()

    def work():
        while not done.is_set():
            yard.work()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(15):
            yard.post(*content(20))
            ledger = yard.ledger()
            assert (ledger["findings"], balanced(ledger)) == ([], True)
    finally:
        done.set()
        worker.join()
