"""The ingest transaction: each rule of design 2.2 with a test that fails without it."""

from __future__ import annotations

import threading
import uuid

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.domain.documents import DEFAULT_TENANT
from app.domain.predictions import Prediction
from app.storage import counters, documents, receipts, rejected
from app.storage.engine import transaction
from app.storage.ingest import ClassifiedChunk, apply, is_unstorable
from app.storage.purging import purge
from app.storage.rejected import Rejection


def stored(engine, document_id):
    with transaction(engine) as connection:
        return documents.get(connection, DEFAULT_TENANT, document_id)


def rows(engine, sql, **values):
    with transaction(engine) as connection:
        return connection.execute(text(sql), values).all()


def states(engine, document_id):
    found = rows(
        engine,
        "SELECT state FROM deliveries WHERE document_id = :id ORDER BY seq, destination_id",
        id=document_id,
    )
    return [row.state for row in found]


def test_a_document_is_stored_with_its_prediction_and_fields(engine, make_document, store):
    document = make_document(
        "hello",
        topics=["a.b"],
        attributes={"n": [1, {"x": None}]},
        prediction=Prediction("sci.space", 0.75, "m1"),
    )
    applied = store(document)
    assert applied.stored == 1
    row = stored(engine, document.id)
    assert (row.content, row.category, row.confidence) == ("hello", "sci.space", 0.75)
    assert (row.topics, row.keys, row.attributes) == (["a.b"], None, {"n": [1, {"x": None}]})
    assert row.created_at == document.created_at


def test_a_chunk_counts_once_however_often_it_is_delivered(
    engine, make_document, make_target, store
):
    target, document, chunk_id = make_target(), make_document(), uuid.uuid4()
    assert store(document, to=(target,), chunk_id=chunk_id).planned == 1
    assert store(document, to=(target,), chunk_id=chunk_id) is None
    assert states(engine, document.id) == ["pending"]
    with transaction(engine) as connection:
        assert counters.totals(connection, DEFAULT_TENANT)["documents.stored"] == 1


def test_the_higher_version_wins_whatever_the_order(engine, make_document, store):
    one = uuid.uuid4()
    store(make_document("v2", id=one, version=2))
    applied = store(make_document("v1, later in the queue", id=one, version=1))
    assert (applied.stored, applied.stale) == (0, 1)
    assert stored(engine, one).content == "v2"


def test_without_versions_the_later_append_wins(engine, make_document, store):
    one = uuid.uuid4()
    first, second = make_document("first", id=one), make_document("second", id=one)
    store(second)
    assert store(first).stale == 1
    assert stored(engine, one).content == "second"


def test_the_same_order_key_again_is_stale(make_document, store):
    document = make_document()
    store(document)
    assert store(document).stale == 1


def test_an_unversioned_update_of_a_versioned_document_is_stale(engine, make_document, store):
    one = uuid.uuid4()
    store(make_document("v5", id=one, version=5))
    assert store(make_document("no version", id=one)).stale == 1
    assert stored(engine, one).content == "v5"


def test_an_update_keeps_created_at_and_what_was_not_sent(engine, make_document, store):
    one = uuid.uuid4()
    first = make_document("first", id=one, topics=["t"], attributes={"a": 1}, priority=7)
    second = make_document("second", id=one, topics=["u"])
    store(first)
    store(second)
    row = stored(engine, one)
    assert (row.content, row.topics, row.attributes, row.priority) == ("second", ["u"], {"a": 1}, 7)
    assert (row.created_at, row.updated_at) == (first.created_at, second.updated_at)


def test_the_same_id_twice_in_a_chunk_keeps_the_newest_with_what_the_older_sent(
    engine, make_document, store
):
    one = uuid.uuid4()
    older = make_document("older", id=one, topics=["t"])
    newer = make_document("newer", id=one)
    applied = store(newer, make_document(), older)
    assert (applied.stored, applied.stale) == (2, 1)
    row = stored(engine, one)
    assert (row.content, row.topics, row.created_at) == ("newer", ["t"], older.created_at)


def test_a_stale_version_in_the_same_chunk_passes_nothing_on(engine, make_document, store):
    one = uuid.uuid4()
    store(make_document("v5", id=one, version=5, topics=["of v5"]))
    store(
        make_document("v3", id=one, version=3, topics=["of v3"]),
        make_document("v6", id=one, version=6),
    )
    assert stored(engine, one).topics == ["of v5"]


def test_a_version_that_was_deleted_passes_nothing_on(engine, make_document, store):
    one = uuid.uuid4()
    store(make_document("v5", id=one, version=5))
    with transaction(engine) as connection:
        documents.delete(connection, DEFAULT_TENANT, one)
    store(
        make_document("v3", id=one, version=3, topics=["of v3"]),
        make_document("v4", id=one, version=4, topics=["of v4"]),
        make_document("v6", id=one, version=6),
    )
    row = stored(engine, one)
    assert (row.content, row.topics) == ("v6", None)


def test_what_somebody_stores_between_two_versions_of_a_chunk_is_passed_on(
    engine, make_document, store
):
    one = uuid.uuid4()
    first, second, third = (
        make_document(f"v{n}", id=one, topics=topics)
        for n, topics in ((1, ["of v1"]), (2, ["of v2"]), (3, None))
    )
    between = ClassifiedChunk(
        tenant_id=DEFAULT_TENANT, chunk_id=uuid.uuid4(), documents=[second], rejections=[]
    )
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with transaction(engine) as connection:
        apply(connection, DEFAULT_TENANT, [between], lambda _: [])
        writer = threading.Thread(target=store, args=(first, third))
        writer.start()
        with engine.connect() as observer:
            while observer.execute(waiting).scalar_one() == 0:
                observer.rollback()
    writer.join()
    row = stored(engine, one)
    assert (row.content, row.topics) == ("v3", ["of v2"])


@pytest.mark.parametrize("number", [2, 3])
def test_a_version_that_postgres_refuses_leaves_the_one_before_it(
    engine, make_document, make_target, store, number
):
    target, one = make_target(), uuid.uuid4()
    good = [make_document(f"v{n}", id=one, topics=[f"of v{n}"]) for n in range(1, number)]
    bad = make_document("bad\0text", id=one)
    counts = store(*good, bad, to=(target,), isolate=True)
    assert (counts.stored, counts.stale, counts.rejected) == (1, number - 2, 1)
    row = stored(engine, one)
    assert (row.content, row.topics) == (good[-1].content, good[-1].topics)
    assert states(engine, one) == ["pending"]
    (kept,) = rows(engine, "SELECT body FROM rejected_documents")
    assert kept.body == bad.as_sent()
    with transaction(engine) as connection:
        assert counters.totals(connection, DEFAULT_TENANT)["documents.created"] == 1


def test_a_newer_version_supersedes_open_deliveries_of_older_ones(
    engine, make_document, make_target, store
):
    target, one = make_target(), uuid.uuid4()
    store(make_document(id=one), to=(target,))
    store(make_document(id=one), to=(target,))
    assert states(engine, one) == ["superseded", "pending"]


def test_v1_never_stays_pending_beside_v2_when_two_writers_race(
    engine, make_document, make_target, store
):
    target = make_target()
    for _ in range(15):
        one = uuid.uuid4()
        versions = [make_document(f"v{n}", id=one) for n in range(4)]
        threads = [
            threading.Thread(target=store, args=(version,), kwargs={"to": (target,)})
            for version in versions
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pending = rows(
            engine,
            "SELECT seq FROM deliveries WHERE document_id = :id AND state = 'pending'",
            id=one,
        )
        assert [row.seq for row in pending] == [versions[-1].seq]


def test_writers_of_the_same_documents_do_not_deadlock(make_document, make_target, store):
    target = make_target()
    ids = [uuid.uuid4() for _ in range(60)]
    failures = []

    def write(order):
        try:
            for _ in range(8):
                store(*(make_document(id=one) for one in order), to=(target,))
        except DBAPIError as error:
            failures.append(error)

    orders = [ids, ids[::-1], ids[30:] + ids[:30], ids[::2] + ids[1::2]]
    threads = [threading.Thread(target=write, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_deleted_document_stays_deleted_against_older_copies(
    engine, make_document, make_target, store
):
    target, one = make_target(), uuid.uuid4()
    older = make_document("older", id=one)
    store(make_document("stored", id=one), to=(target,))
    with transaction(engine) as connection:
        assert documents.delete(connection, DEFAULT_TENANT, one)
    assert states(engine, one) == ["cancelled"]
    assert store(older).stale == 1
    assert stored(engine, one) is None
    assert store(make_document("posted after the deletion", id=one)).stored == 1


def test_an_upsert_that_waited_for_a_deletion_meets_its_tombstone(engine, make_document, store):
    one = uuid.uuid4()
    older = make_document("older", id=one)
    store(make_document("stored", id=one))
    with transaction(engine) as connection:
        documents.delete(connection, DEFAULT_TENANT, one)
        writer = threading.Thread(target=store, args=(older,))
        writer.start()
        waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        with engine.connect() as observer:
            while observer.execute(waiting).scalar_one() == 0:
                observer.rollback()
    writer.join()
    assert stored(engine, one) is None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"content": "bad\0text"}, id="refused by the driver"),
        pytest.param({"content": "bad", "attributes": {"a": "\0"}}, id="refused by the server"),
    ],
)
def test_a_document_that_postgres_refuses_is_set_aside_alone(engine, make_document, store, fields):
    good = [make_document(f"good {n}") for n in range(7)]
    bad = make_document(**fields)
    chunk = [*good[:3], bad, *good[3:]]
    with pytest.raises(DBAPIError) as refused:
        store(*chunk)
    assert is_unstorable(refused.value)
    applied = store(*chunk, isolate=True)
    assert (applied.stored, applied.rejected) == (7, 1)
    (row,) = rows(engine, "SELECT document_id, reason, body FROM rejected_documents")
    assert row.document_id == bad.id
    assert row.reason.startswith("Postgres refused it (")
    assert b"bad" in bytes(row.body)


def test_counts_add_up_and_are_on_the_receipt(engine, make_document, make_target, store):
    target, one, chunk_id = make_target(), uuid.uuid4(), uuid.uuid4()
    store(
        make_document(id=one),
        make_document(id=one),
        make_document(),
        to=(target,),
        chunk_id=chunk_id,
    )
    (row,) = rows(engine, "SELECT stored, stale, rejected, planned FROM receipts")
    assert tuple(row) == (2, 1, 0, 2)


def test_folded_counters_equal_the_deltas(engine, make_document, make_target, store):
    target = make_target()
    for _ in range(3):
        store(make_document(), make_document(), to=(target,))
    with transaction(engine) as connection:
        before = counters.totals(connection, DEFAULT_TENANT)
        assert counters.fold(connection, DEFAULT_TENANT) > 0
    with transaction(engine) as connection:
        assert counters.totals(connection, DEFAULT_TENANT) == before
        assert counters.fold(connection, DEFAULT_TENANT) == 0
    assert before["documents.stored"] == 6
    assert before["deliveries.planned"] == 6


def test_hours_of_counters_are_those_of_utc_whatever_the_zone_of_the_database(
    engine, make_document, store
):
    store(make_document())
    with transaction(engine) as connection:
        connection.execute(text("SET LOCAL timezone = 'Asia/Kolkata'"))
        counters.fold(connection, DEFAULT_TENANT)
    [(minute,)] = rows(
        engine, "SELECT DISTINCT extract(minute FROM hour AT TIME ZONE 'UTC') FROM counters"
    )
    assert minute == 0


def test_few_documents_are_counted_and_many_estimated(engine, make_document, store, monkeypatch):
    def counted():
        with transaction(engine) as connection:
            return documents.count_estimate(connection)

    assert counted() == 0
    store(*[make_document(str(number)) for number in range(4)])
    # Never analysed: the planner knows nothing of them.
    assert counted() == 4
    monkeypatch.setattr(documents, "COUNTED", 2)
    assert counted() == 2
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE documents"))
    assert counted() == 4


def test_a_purge_and_the_retry_of_a_rejected_version_do_not_deadlock(engine, make_document, store):
    one, chunk_id = uuid.uuid4(), uuid.uuid4()
    store(make_document(id=one))
    again = make_document("again", id=one)
    body = Rejection(seq=again.seq, document_id=one, reason="x", body=again.as_sent())
    with transaction(engine) as connection:
        rejected.reject(connection, DEFAULT_TENANT, uuid.uuid4(), [body])
        receipts.announce_retry(connection, DEFAULT_TENANT, chunk_id, apart=False)
    failures = []

    def retry():
        try:
            store(again, chunk_id=chunk_id)
        except DBAPIError as error:
            failures.append(error)

    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    writer = threading.Thread(target=retry)
    with transaction(engine) as connection:
        connection.execute(text("SELECT FROM documents FOR UPDATE"))  # as a purge begins
        writer.start()
        with engine.connect() as observer:
            while observer.execute(waiting).scalar_one() == 0:
                observer.rollback()
        purge(connection, DEFAULT_TENANT, one, again.seq)
    writer.join()
    assert failures == []
    assert stored(engine, one) is None
