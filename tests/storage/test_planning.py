"""What the ingest transaction plans, and by which of a document's fields."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import text

from app.domain.documents import DEFAULT_TENANT
from app.domain.predictions import Prediction
from app.storage.destinations import DestinationCache
from app.storage.engine import transaction
from app.storage.ingest import ClassifiedChunk, apply


@pytest.fixture
def ingest(engine):
    """Apply documents as one chunk, routed as they are in production."""
    cache = DestinationCache()

    def run(*documents):
        chunk = ClassifiedChunk(
            tenant_id=DEFAULT_TENANT, chunk_id=uuid.uuid4(), documents=documents, rejections=[]
        )
        with transaction(engine) as connection:
            table = cache.table(connection, DEFAULT_TENANT)
            return apply(
                connection,
                DEFAULT_TENANT,
                [chunk],
                lambda document: table.routes(document, document.prediction),
            )

    return run


def routes(engine, document):
    """Key and reason of each route of one version."""
    with transaction(engine) as connection:
        rows = connection.execute(
            text(
                "SELECT s.key, d.reason FROM deliveries d JOIN destinations s"
                " ON s.id = d.destination_id WHERE d.document_id = :id AND d.seq = :seq"
                " ORDER BY s.key"
            ),
            {"id": document.id, "seq": document.seq},
        )
        return [tuple(row) for row in rows]


def test_an_update_is_routed_by_the_fields_that_it_left_as_they_were(
    engine, make_document, make_target, ingest
):
    make_target("a")
    make_target("b")
    one = uuid.uuid4()
    first = make_document("first", id=one, keys=["a"], attributes={"tier": "gold"})
    second = make_document("second", id=one)
    ingest(first)
    ingest(second)
    assert routes(engine, first) == routes(engine, second) == [("a", "key 'a' was named")]
    third = make_document("third", id=one, delivery="broadcast")
    ingest(make_document(), third)
    assert [key for key, _ in routes(engine, third)] == ["a", "b"]
    assert (second.keys, second.attributes) == (None, None)


def test_a_document_that_nobody_answers_to_is_stored_without_routes(
    engine, make_document, make_target, ingest
):
    make_target("a")
    document = make_document(
        topics=["nobody.listens"], prediction=Prediction("sci.space", 0.5, "m")
    )
    (counts,) = ingest(document).counts.values()
    assert (counts.stored, counts.planned) == (1, 0)
    assert routes(engine, document) == []


def test_destinations_take_what_they_say_they_take(engine, make_document, make_target, ingest):
    make_target("space", categories=["sci.space"], min_confidence=0.75)
    make_target("doubt", min_confidence=0.75, uncertain=True)
    make_target("gold", topics=["order.**"], filter={"attributes.customer.tier": {"$in": ["gold"]}})
    sure = make_document(prediction=Prediction("sci.space", 0.75, "m"))
    unsure = make_document(prediction=Prediction("sci.space", 0.5, "m"))
    gold = make_document(topics=["order.eu.new"], attributes={"customer": {"tier": "gold"}})
    other = make_document(topics=["order.eu.new"], attributes={"customer": {"tier": "tin"}})
    ingest(sure, unsure, gold, other)
    assert routes(engine, sure) == [
        ("space", "broadcast; category 'sci.space'; confidence 0.75, at least 0.75")
    ]
    assert routes(engine, unsure) == [("doubt", "broadcast; confidence 0.5, below 0.75")]
    assert routes(engine, gold) == [
        ("gold", "topic 'order.eu.new' fits 'order.**'; its filter matches")
    ]
    assert routes(engine, other) == []
