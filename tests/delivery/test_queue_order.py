"""Queue types, versions one by one, and documents that travel together: the parts in memory."""

import uuid
from datetime import timedelta

import pytest

from app.domain.delivery_rules import BatchInput
from app.storage.due import DuePage
from tests.delivery.test_workload import NOW, due
from worker import workload as workload_module
from worker.workload import Budget, Workload

A, B = uuid.UUID(int=10), uuid.UUID(int=11)


def make(*, queue="fifo", ordered=False, batch=None):
    workload = Workload(Budget(10**9))
    workload.configure(queue=queue, ordered=ordered, batch=batch and BatchInput(**batch))
    return workload


def admit(workload, *rows, retries=(), **options):
    workload.begin_read()
    return workload.admit(DuePage(list(rows), list(retries)), **options)


def take(workload, now=0.0):
    unit = workload.take(now)
    return None if unit is None else [row.key.seq for row in unit]


def take_all(workload, now=0.0):
    return list(iter(lambda: take(workload, now), None))


@pytest.mark.parametrize(
    ("queue", "order"), [("fifo", [1, 2, 3, 4]), ("lifo", [4, 3, 2, 1]), ("priority", [3, 1, 4, 2])]
)
def test_what_is_read_later_takes_its_place_in_the_order(queue, order):
    workload = make(queue=queue)
    ranks = {1: 10, 2: 20, 3: 5, 4: 10} if queue == "priority" else dict.fromkeys(range(1, 5), 0)
    admit(workload, *[due(seq, rank=ranks[seq]) for seq in (1, 2)])
    admit(workload, *[due(seq, rank=ranks[seq]) for seq in (3, 4)])
    assert take_all(workload) == [[seq] for seq in order]


def test_what_finds_no_room_in_front_is_forgotten_and_read_again(monkeypatch):
    monkeypatch.setattr(workload_module, "KEPT_ROWS", 2)
    workload = make(queue="lifo")
    admit(workload, due(1), due(2))
    admit(workload, due(3))
    assert sorted(workload.begin_read()) == [2, 3]
    assert take_all(workload) == [[3], [2]]
    assert admit(workload, due(1)) == 1


class TestOrdered:
    def test_a_version_waits_while_another_is_in_flight(self):
        workload = make(ordered=True)
        admit(workload, due(1, id_=A), due(2, id_=B))
        (first,) = workload.take(0.0)
        admit(workload, due(3, id_=A))
        assert take_all(workload) == [[2]]
        assert workload.ready(0.0) == 0
        workload.ended(first)
        assert workload.ready(0.0) == 1
        assert take_all(workload) == [[3]]

    def test_an_older_version_is_dropped_when_a_newer_one_has_been_read(self):
        workload = make(ordered=True)
        admit(workload, due(1, id_=A), retries=[due(5, id_=B, attempts=1)])
        admit(workload, due(9, id_=A), due(8, id_=B))
        assert sorted(take_all(workload)) == [[8], [9]]

    def test_the_version_that_the_client_gave_says_which_is_older(self):
        workload = make(ordered=True)
        older, newer = due(9, id_=A)._replace(version=1), due(2, id_=A)._replace(version=2)
        admit(workload, older, newer)
        assert take_all(workload) == [[2]]

    def test_the_newest_of_several_that_wait_goes_next(self):
        workload = make(ordered=True)
        admit(workload, due(1, id_=A))
        (first,) = workload.take(0.0)
        admit(workload, due(2, id_=A))
        assert take(workload) is None
        admit(workload, due(3, id_=A))
        assert take(workload) is None
        workload.ended(first)
        assert take(workload) == [3]
        assert len(workload) == 0

    def test_without_it_nothing_waits(self):
        workload = make()
        admit(workload, due(1, id_=A), due(2, id_=A))
        assert take_all(workload) == [[1], [2]]

    def test_what_waits_is_not_lost_when_it_is_switched_off(self):
        workload = make(ordered=True)
        admit(workload, due(1, id_=A))
        workload.take(0.0)
        admit(workload, due(2, id_=A))
        assert take(workload) is None
        workload.configure(queue="fifo", ordered=False, batch=None)
        assert take(workload) == [2]

    def test_memory_of_versions_is_bounded(self, monkeypatch):
        monkeypatch.setattr("worker.order.MOST_REMEMBERED", 10)
        workload = make(ordered=True)
        for number in range(1, 100):
            admit(workload, due(number, id_=uuid.UUID(int=number)))
            (row,) = workload.take(0.0)
            workload.ended(row)
        assert len(workload._versions._newest) <= 10


class TestBatches:
    def test_a_full_batch_goes_at_once_and_the_rest_waits_for_others(self):
        workload = make(batch={"max_items": 3, "max_wait_seconds": 2})
        admit(workload, *map(due, range(1, 6)))
        assert workload.ready(100.0) == 1
        assert take(workload, 100.0) == [1, 2, 3]
        assert (workload.ready(100.0), take(workload, 100.0)) == (0, None)
        assert workload.ready_at(100.5) == 102.0
        admit(workload, due(6))
        assert take(workload, 100.6) == [4, 5, 6]

    def test_when_nobody_comes_they_go_with_those_there_are(self):
        workload = make(batch={"max_items": 3, "max_wait_seconds": 2})
        admit(workload, due(1))
        assert (workload.ready(100.0), workload.ready_at(100.0)) == (0, 102.0)
        assert workload.ready_at(101.9) == 102.0
        assert take(workload, 102.0) == [1]
        assert workload.ready_at(102.0) is None

    def test_bytes_end_a_batch_and_what_is_longer_goes_alone(self):
        workload = make(batch={"max_items": 100, "max_bytes": 1024, "max_wait_seconds": 9})
        sizes = {1: 500, 2: 500, 3: 500, 4: 5000, 5: 10}
        admit(workload, *[due(seq, content="x" * size) for seq, size in sizes.items()])
        assert take_all(workload, 0.0) == [[1, 2], [3], [4]]
        assert take(workload, 9.0) == [5]

    def test_those_that_failed_together_are_tried_again_together(self):
        workload = make(batch={"max_items": 10, "max_wait_seconds": 0})
        later = NOW + timedelta(seconds=1)
        retries = [due(seq, attempts=1) for seq in (1, 2)]
        retries += [due(seq, attempts=1, due_at=later) for seq in (3, 4, 5)]
        admit(workload, retries=retries)
        assert workload.ready(0.0) == 2
        assert take_all(workload) == [[1, 2], [3, 4, 5]]

    def test_a_page_that_ends_within_them_is_read_again(self):
        workload = make(batch={"max_items": 10})
        later = NOW + timedelta(seconds=1)
        retries = [due(1, attempts=1), due(2, attempts=1), due(3, attempts=1, due_at=later)]
        assert admit(workload, retries=retries, full=True) == 2
        assert admit(workload, retries=[due(3, attempts=1, due_at=later)], full=True) == 1
        assert take_all(workload) == [[1, 2], [3]]

    def test_two_versions_of_a_document_never_travel_together(self):
        workload = make(ordered=True, batch={"max_items": 2, "max_wait_seconds": 0})
        admit(workload, due(1, id_=A), due(2, id_=B))
        first = workload.take(0.0)
        admit(workload, due(3, id_=A), due(4, id_=B))
        assert not take(workload)
        for row in first:
            workload.ended(row)
        assert sorted(take(workload)) == [3, 4]
