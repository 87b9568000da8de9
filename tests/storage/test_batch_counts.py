"""Several chunks in one transaction, and what is counted of a batch."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import text

from app.domain.deliveries import DeliveryState
from app.domain.documents import DEFAULT_TENANT
from app.domain.routing import Route
from app.storage import batches, counters, documents
from app.storage.deliveries import DeliveryKey
from app.storage.engine import transaction
from app.storage.ingest import ClassifiedChunk, apply
from app.storage.rejected import Rejection
from tests.storage.test_deliveries import record, result, take


def chunk(*incoming, rejections=(), batch_id=None):
    return ClassifiedChunk(
        tenant_id=DEFAULT_TENANT,
        chunk_id=uuid.uuid4(),
        documents=list(incoming),
        rejections=list(rejections),
        batch_id=batch_id,
    )


@pytest.fixture
def apply_all(engine):
    def run(*chunks, to=(), isolate=False):
        with transaction(engine) as connection:
            return apply(
                connection,
                DEFAULT_TENANT,
                chunks,
                lambda _: [Route(one.id, "broadcast") for one in to],
                isolate=isolate,
            )

    return run


@pytest.fixture
def counts(engine):
    def read(batch_id):
        with transaction(engine) as connection:
            return batches.counts(connection, DEFAULT_TENANT, batch_id)

    return read


def test_chunks_that_share_a_transaction_have_receipts_of_their_own(
    engine, make_document, make_target, apply_all
):
    target, one = make_target(), uuid.uuid4()
    older, newer = make_document("old", id=one), make_document("new", id=one)
    rejection = Rejection(seq=7, document_id=None, reason="no", body=b"{}")
    first, second = chunk(older, make_document()), chunk(newer, rejections=[rejection])
    done = apply_all(second, first, to=(target,))
    got = done.counts
    assert (got[first.chunk_id].stored, got[first.chunk_id].stale) == (1, 1)
    assert (got[second.chunk_id].stored, got[second.chunk_id].rejected) == (1, 1)
    assert [got[one.chunk_id].planned for one in (first, second)] == [1, 1]
    with transaction(engine) as connection:
        receipts = connection.execute(
            text("SELECT chunk_id, stored, stale, rejected, planned FROM receipts")
        ).all()
    assert {row[0]: tuple(row[1:]) for row in receipts} == {
        first.chunk_id: (1, 1, 0, 1),
        second.chunk_id: (1, 0, 1, 1),
    }


def test_a_chunk_that_was_applied_before_does_not_count_again_among_new_ones(
    make_document, apply_all
):
    old, new = chunk(make_document()), chunk(make_document())
    apply_all(old)
    assert list(apply_all(old, new).counts) == [new.chunk_id]


def test_a_refused_document_is_counted_in_its_own_chunk(make_document, apply_all):
    bad = make_document(attributes={"n": "\0"})
    good, mixed = chunk(make_document()), chunk(make_document(), bad)
    done = apply_all(good, mixed, isolate=True)
    assert done.counts[good.chunk_id].rejected == 0
    assert (done.counts[mixed.chunk_id].stored, done.counts[mixed.chunk_id].rejected) == (1, 1)


def test_a_batch_counts_its_documents_and_deliveries_to_their_end(
    engine, make_document, make_target, apply_all, counts
):
    target, batch, other, one = make_target(), uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    first = make_document("v1", id=one)
    sent = make_document("sent")
    apply_all(chunk(first, sent, batch_id=batch), chunk(make_document()), to=(target,))
    assert counts(batch) == {"stored": 2, "planned": 2}

    # A document outside of the batch replaces one of it: the batch's delivery ends by that.
    apply_all(chunk(make_document("v2", id=one)), to=(target,))
    assert counts(batch) == {"stored": 2, "planned": 2, "superseded": 1}

    key = DeliveryKey(DEFAULT_TENANT, sent.id, sent.seq, target.id, 0)
    record(engine, take(engine, target), result(key, DeliveryState.DELIVERED))
    expected = {"stored": 2, "planned": 2, "superseded": 1, "delivered": 1}
    assert counts(batch) == expected
    assert counts(other) == {}

    with transaction(engine) as connection:
        assert batches.fold(connection, DEFAULT_TENANT) == [batch]
    assert counts(batch) == expected
    stale = make_document("v0", id=one, seq=1_600_000_000_000_000)
    apply_all(chunk(stale, batch_id=batch), to=(target,))
    assert counts(batch) == expected | {"stale": 1}


def test_a_delivery_counts_once_though_its_success_came_behind_its_replacement(
    engine, make_document, make_target, apply_all, counts
):
    target, batch, one = make_target(), uuid.uuid4(), uuid.uuid4()
    sent = make_document("v1", id=one)
    apply_all(chunk(sent, batch_id=batch), to=(target,))
    lease = take(engine, target)
    apply_all(chunk(make_document("v2", id=one)), to=(target,))
    assert counts(batch) == {"stored": 1, "planned": 1, "superseded": 1}

    key = DeliveryKey(DEFAULT_TENANT, sent.id, sent.seq, target.id, 0)
    record(engine, lease, result(key, DeliveryState.DELIVERED))
    ended = {name: amount for name, amount in counts(batch).items() if amount}
    assert ended == {"stored": 1, "planned": 1, "delivered": 1}
    with transaction(engine) as connection:
        totals = counters.totals(connection, DEFAULT_TENANT)
    assert totals["deliveries.superseded"] == 0
    assert totals["deliveries.delivered"] == 1


def test_deliveries_of_a_deleted_document_end_for_its_batch(
    engine, make_document, make_target, apply_all, counts
):
    batch, document = uuid.uuid4(), make_document()
    apply_all(chunk(document, batch_id=batch), to=(make_target(),))
    with transaction(engine) as connection:
        documents.delete(connection, DEFAULT_TENANT, document.id)
    assert counts(batch) == {"stored": 1, "planned": 1, "cancelled": 1}
