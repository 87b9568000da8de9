"""What Redis counts as accepted is written down once, whoever does it and however slowly."""

from __future__ import annotations

import pytest

from app.domain.documents import DEFAULT_TENANT
from app.storage import accepted, counters
from app.storage.engine import transaction


@pytest.fixture
def note(engine):
    """Write down what a Redis says."""

    def run(says, *, meanwhile=lambda: None):
        def read():
            meanwhile()
            return says

        with transaction(engine) as connection:
            return accepted.note(connection, DEFAULT_TENANT, read)

    return run


@pytest.fixture
def total(engine):
    def run():
        with transaction(engine) as connection:
            return counters.totals(connection, DEFAULT_TENANT).get(accepted.ACCEPTED, 0)

    return run


def test_what_came_since_the_last_time_is_added(note, total):
    assert note({}) == 0
    assert note({"ingest": 3}) == 3
    assert note({"ingest": 5, "ingest.bulk": 40}) == 42
    assert note({"ingest": 5, "ingest.bulk": 40}) == 0
    assert total() == 45


def test_a_redis_that_lost_data_goes_on_from_there(note, total):
    note({"ingest": 30})
    assert note({"ingest": 10}) == 0
    assert note({"ingest": 12}) == 2
    assert total() == 32


@pytest.mark.parametrize("before", [{}, {"ingest": 2}], ids=["no mark yet", "marks"])
def test_nothing_is_counted_twice_by_one_who_stood_still_in_the_middle(note, total, before):
    note(before)
    others = []
    note(
        {"ingest": 30},
        meanwhile=lambda: others.append(note({"ingest": 70, "ingest.bulk": 40})),
    )
    assert others == [0]
    note({"ingest": 70, "ingest.bulk": 40})
    assert total() == 110
