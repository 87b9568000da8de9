import uuid
from datetime import UTC, datetime

import pytest

from app.storage.deliveries import DeliveryKey
from app.storage.due import START, DueDelivery, DuePage
from worker.reading import LOOK_BACK_SEQ, Cursor, Schedule
from worker.workload import FLOOR_BYTES, Budget, Workload

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ID = uuid.UUID(int=1)


def due(seq, *, attempts=0, content="x", id_=ID, rank=0, due_at=NOW):
    return DueDelivery(
        key=DeliveryKey(1, id_, seq, ID, 0),
        version=0,
        attempts=attempts,
        created_at=NOW,
        rank=rank,
        due_at=due_at,
        open_since=NOW,
        last_status=None,
        document_seq=seq,
        content=content,
        category=None,
        confidence=None,
        model_version=None,
        topics_json=None,
        attributes_json=None,
        document_created_at=NOW,
        document_updated_at=NOW,
    )


def fresh(*seqs, **fields):
    return DuePage([due(seq, **fields) for seq in seqs], [])


@pytest.fixture
def budget():
    return Budget(1_000_000)


@pytest.fixture
def workload(budget):
    return Workload(budget)


def admit(workload, page):
    workload.begin_read()
    return workload.admit(page)


def seqs_taken(workload):
    taken = []
    while (unit := workload.take(0.0)) is not None:
        (row,) = unit
        taken.append(row.key.seq)
    return taken


def test_a_row_that_is_queued_or_in_flight_is_not_taken_up_again(workload):
    assert admit(workload, fresh(1, 2)) == 2
    workload.take(0.0)
    assert admit(workload, fresh(1, 2, 3)) == 1
    assert seqs_taken(workload) == [2, 3]


def test_a_read_that_began_before_the_flush_does_not_bring_a_row_back(workload):
    admit(workload, fresh(1))
    (row,) = workload.take(0.0)
    workload.ended(row)
    assert workload.begin_read() == [1]
    workload.recorded([row.key])
    assert workload.admit(fresh(1)) == 0


def test_a_read_that_began_behind_the_flush_brings_back_what_is_due_again(workload):
    admit(workload, fresh(1))
    (row,) = workload.take(0.0)
    workload.ended(row)
    workload.recorded([row.key])
    again = DuePage([], [due(1, attempts=1)])
    assert admit(workload, again) == 1


def test_memory_of_ended_rows_goes_with_the_next_read(workload):
    admit(workload, fresh(*range(100)))
    while unit := workload.take(0.0):
        (row,) = unit
        workload.ended(row)
        workload.recorded([row.key])
    assert len(workload._known) == 100
    admit(workload, fresh())
    assert len(workload._known) == len(workload._recorded) == 0


def test_fresh_rows_and_retries_are_taken_in_turn(workload):
    page = DuePage([due(n) for n in (1, 2, 3)], [due(n, attempts=1) for n in (11, 12)])
    admit(workload, page)
    assert sorted(seqs_taken(workload)[:4]) == [1, 2, 11, 12]


def test_bytes_beyond_the_floor_are_taken_from_the_common_budget_and_given_back(workload, budget):
    content = "x" * (FLOOR_BYTES // 2)
    admit(workload, fresh(1, 2, content=content))
    assert budget.free == 1_000_000
    admit(workload, fresh(3, content=content))
    assert budget.free == 1_000_000 - FLOOR_BYTES // 2
    assert workload.room_bytes == 1_000_000 - FLOOR_BYTES // 2
    workload.ended(*workload.take(0.0))
    assert budget.free == 1_000_000
    workload.drop()
    assert workload.room_bytes == 1_000_000 + FLOOR_BYTES


def test_a_destination_has_its_floor_when_others_have_used_up_the_budget(workload, budget):
    budget.charge(2_000_000)
    assert workload.room_bytes == FLOOR_BYTES
    content = "ü" * (FLOOR_BYTES // 2)
    admit(workload, fresh(1, content=content))
    assert workload.room_bytes <= 0


def rows(*seqs):
    return fresh(*seqs).fresh


def test_a_cursor_goes_on_behind_the_last_row_and_begins_anew_behind_an_empty_read():
    cursor = Cursor()
    assert cursor.begin(100.0) == START
    cursor.end(rows(10, 20))
    assert cursor.begin(100.01) == (0, 20)
    cursor.end([])
    assert cursor.begin(100.02) == START


def test_a_cursor_looks_back_a_moment_and_from_time_to_time_at_everything():
    cursor = Cursor()
    cursor.begin(100.0)
    start = 50 * LOOK_BACK_SEQ
    cursor.end(rows(start))
    assert cursor.begin(100.1) == (0, start)
    cursor.end(rows(start))
    assert cursor.begin(100.3) == (0, start - LOOK_BACK_SEQ)
    cursor.end(rows(start))
    assert cursor.begin(100.4) == (0, start)
    cursor.end(rows(start))
    assert cursor.begin(105.5) == START


def test_pages_grow_while_they_are_used_up_quickly_and_shrink_behind_a_slow_one():
    schedule = Schedule()
    sizes = []
    for now in (100.0, 100.1, 100.2, 100.3, 100.4, 105.0, 110.0):
        sizes.append(schedule.begin(now))
        page = fresh(*range(sizes[-1]))
        schedule.end(page, new=sizes[-1], max_bytes=10**9, now=now)
    assert sizes == [100, 200, 400, 800, 800, 400, 200]


def test_a_page_that_was_not_full_is_the_last_for_now():
    schedule = Schedule()
    schedule.begin(100.0)
    schedule.end(fresh(1, 2), new=2, max_bytes=10**9, now=100.0)
    assert not schedule.more
    schedule.begin(100.0)
    schedule.end(fresh(1, 2), new=2, max_bytes=2, now=100.0)
    assert schedule.more  # the bytes were the bound


def test_without_rings_reads_become_rarer_until_there_is_something():
    schedule = Schedule()
    waits = []
    for new in (1, 0, 0, 0, 0, 1):
        schedule.begin(100.0)
        schedule.end(fresh(), new=new, max_bytes=1, now=100.0)
        waits.append(schedule.next_at - 100.0)
    assert waits == [0.25, 0.5, 1.0, 2.0, 2.0, 0.25]


def test_behind_failed_reads_the_pauses_grow():
    schedule = Schedule()
    waits = []
    for _ in range(5):
        schedule.failed(100.0)
        waits.append(schedule.next_at - 100.0)
    assert waits == [0.5, 1.0, 2.0, 2.0, 2.0]
