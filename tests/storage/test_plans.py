"""Every statement that runs all the time finds its rows by an index, however large the tables."""

from __future__ import annotations

import psycopg
import pytest

from app.storage.engine import make_engine
from bench.explain import explain
from bench.statements import STATEMENTS
from bench.world import make_world

LARGE = (
    "documents",
    "deliveries",
    "tombstones",
    "receipts",
    "rejected_documents",
    "counters",
    "batch_counts",
)
"""Grow with the documents, or their faults. The others stay small: destinations, leases, deltas."""
ENTERED_BY = {
    "documents_pkey": ("id = ", "id > "),
    "deliveries_pkey": ("document_id = ",),
    "deliveries_fresh": ("destination_id = ",),
    "deliveries_retry": ("destination_id = ",),
    "deliveries_accepted": ("(seq ", "ROW(seq, "),
    "deliveries_undelivered": ("state = ",),
    "tombstones_pkey": ("document_id = ", "document_id > "),
    "receipts_pkey": ("chunk_id = ", "chunk_id < "),
    "rejected_documents_pkey": ("seq = ", "seq < "),
    "rejected_documents_document": ("document_id = ", "document_id IS NULL"),
    "counters_pkey": ("name = ", "ROW(name, "),
    "batch_counts_pkey": ("batch_id = ", "batch_id > "),
}
"""What must be known besides the tenant: without it an index is read from end to end as well."""


@pytest.fixture(scope="module", params=["analysed", "never analysed"])
def large(request, postgres, template_database):
    """An engine on tables of 50,000 documents and 105,000 deliveries, and what is in them."""
    name = "test_plans"
    _execute(postgres.url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    url = postgres.server.url(name)
    for table in LARGE:
        _execute(url, f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    engine = make_engine(url, application_name="test")
    tidy = request.param == "analysed"
    yield engine, make_world(engine, _for_psycopg(url), 50_000, tidy=tidy)
    engine.dispose()
    _execute(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(url, statement):
    with psycopg.connect(_for_psycopg(url), autocommit=True) as connection:
        connection.execute(statement)


def _for_psycopg(url):
    return url.replace("postgresql+psycopg://", "postgresql://")


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_large_table_is_read_from_end_to_end(large, name):
    engine, world = large
    explained = explain(engine, STATEMENTS[name], world)
    assert explained, "nothing was run"
    for one in explained:
        for scan in one.scans():
            assert scan.source not in LARGE or scan.kind != "Seq Scan", one.statement
            known = ENTERED_BY.get(scan.source, ("",))
            assert any(one in scan.condition for one in known), explained
