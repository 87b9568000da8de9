"""Every statement that runs all the time finds its rows by an index, however large the tables."""

from __future__ import annotations

import pytest

from app.storage.engine import make_engine
from bench.statements import STATEMENTS, explain, make_world

LARGE = {"documents", "deliveries", "tombstones", "receipts", "counters", "batch_counts"}
"""Grow with the documents. The others stay small: destinations, leases, deltas between folds."""


@pytest.fixture(scope="module")
def large(postgres, template_database):
    """An engine on tables of 50,000 documents and 150,000 deliveries, and what is in them."""
    import psycopg

    name = "test_plans"
    conninfo = postgres.url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
    url = postgres.server.url(name).replace("postgresql+psycopg://", "postgresql://")
    engine = make_engine(url, application_name="test")
    yield engine, make_world(engine, url, 50_000)
    engine.dispose()
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_large_table_is_read_from_end_to_end(large, name):
    engine, world = large
    explained = explain(engine, STATEMENTS[name], world)
    assert explained, "nothing was run"
    found = {
        (kind, table, one.statement)
        for one in explained
        for kind, table in one.scans()
        if kind == "Seq Scan" and table in LARGE
    }
    assert found == set()
