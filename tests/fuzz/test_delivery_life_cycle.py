"""Deliveries live as drawn in ``app/domain/deliveries.py``, in whatever order things happen.

hypothesis draws the order; a model in Python says what each row must be, and real Postgres is asked
through ``app.storage`` and ``app.services`` after every step.
"""

from __future__ import annotations

import itertools
import uuid

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from app.domain.documents import DEFAULT_TENANT, OrderKey
from app.storage import documents
from app.storage.engine import make_engine, transaction
from app.storage.ingest import apply
from tests.fuzz.drawn_lives import Deliveries, chunk_of, document

STEPS = 40


@pytest.mark.timeout(1800)
def test_deliveries_live_as_drawn(database_url, fuzz):
    engine = make_engine(database_url, application_name="test")
    made = type("DeliveriesHere", (Deliveries,), {"engine": engine})
    rules = settings(
        max_examples=max(40, fuzz.cases // 20),
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(fuzz.seed)(made), settings=rules)
    engine.dispose()


@pytest.mark.timeout(600)
def test_versions_in_any_order_end_at_the_newest(database_url, fuzz):
    engine = make_engine(database_url, application_name="test")
    numbers = itertools.count(1_800_000_000_000_000, 100)

    @seed(fuzz.seed)
    @settings(max_examples=max(20, fuzz.cases // 20), deadline=None, database=None)
    @given(
        st.lists(
            st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=5),
            min_size=1,
            max_size=5,
        ),
        st.randoms(use_true_random=False),
    )
    def check(chunks, draw):
        ids = [uuid.uuid4() for _ in range(3)]
        seqs = iter(range(base := next(numbers), base + 100))
        made = [[document(ids[n], v, next(seqs)) for n, v in chunk] for chunk in chunks]
        draw.shuffle(made)
        for part in made:
            with transaction(engine) as connection:
                apply(connection, DEFAULT_TENANT, [chunk_of(part)], lambda _: [])
        newest = {}
        for one in itertools.chain(*made):
            newest[one.id] = max(newest.get(one.id, OrderKey(-1, -1)), one.order_key)
        with transaction(engine) as connection:
            for one, key in newest.items():
                row = documents.get(connection, DEFAULT_TENANT, one)
                assert (row.version, row.seq, row.content) == (*key, f"text {key.seq}")

    check()
    engine.dispose()
