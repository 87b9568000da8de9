import asyncio
import uuid
from collections import Counter
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from app.domain.deliveries import DeliveryState
from app.storage.deliveries import DeliveryKey, DeliveryResult
from app.storage.leases import Lease
from tests.delivery.conftest import wait_until
from worker import recorder as recorder_module
from worker.recorder import FLUSH_ROWS, FLUSH_SECONDS, Recorder

ID = uuid.UUID(int=1)


def result(seq):
    return DeliveryResult(
        key=DeliveryKey(1, ID, seq, ID, 0),
        state=DeliveryState.DELIVERED,
        attempts=1,
        due_at=None,
        status=200,
        error=None,
        finished_at=datetime.now(UTC),
    )


def lease(number=1):
    return Lease(
        tenant_id=1,
        destination_id=uuid.UUID(int=number),
        holder="h",
        epoch=1,
        lost_leases=0,
        acquired_at=datetime.now(UTC),
    )


class Book:
    """Takes records as the outbox does, and fails as often as it is told."""

    def __init__(self, *, failures=0):
        self.groups = []
        self.failures = failures

    async def record(self, _lease, results):
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise OSError("no database")
        self.groups.append(len(results))
        return Counter(one.state for one in results)


def run(book, fill):
    recorded = []

    async def main():
        recorder = Recorder(book)
        group = recorder.open(lease(), recorded.extend)
        await fill(recorder, group)
        recorder.close(group)

    asyncio.run(main())
    return recorded


async def written(group):
    await asyncio.to_thread(wait_until, lambda: not group.backlog)


def test_a_hundred_results_are_written_at_once(monkeypatch):
    monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 3600)
    book = Book()

    async def fill(_, group):
        for seq in range(FLUSH_ROWS):
            group.add(result(seq))
        await written(group)
        assert book.groups == [FLUSH_ROWS]

    assert len(run(book, fill)) == FLUSH_ROWS


def test_fewer_wait_for_more_but_not_for_long():
    book = Book()

    async def fill(_, group):
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        group.add(result(1))
        await asyncio.sleep(0)
        group.add(result(2))
        assert (book.groups, group.backlog) == ([], 2)
        await written(group)
        assert loop.time() - began_at >= FLUSH_SECONDS
        assert book.groups == [2]

    assert [one.key.seq for one in run(book, fill)] == [1, 2]


def test_what_cannot_be_written_is_kept_until_it_can(monkeypatch):
    monkeypatch.setattr(recorder_module, "FIRST_PAUSE_SECONDS", 0.01)
    book = Book(failures=3)

    async def fill(_, group):
        group.add(result(1))
        await group.drain()

    with capture_logs() as logs:
        recorded = run(book, fill)
    assert [one.key.seq for one in recorded] == [1]
    assert [one["event"] for one in logs if one["log_level"] == "warning"] == [
        "delivery.record_failed"
    ] * 3


def test_draining_writes_also_what_comes_meanwhile():
    book = Book()

    async def fill(_, group):
        group.add(result(1))
        draining = asyncio.create_task(group.drain())
        await asyncio.sleep(0)
        group.add(result(2))
        await draining
        assert group.backlog == 0

    assert len(run(book, fill)) == 2


@pytest.mark.parametrize(("groups", "seconds"), [(1, 0.1), (10, 0.1), (100, 1.0), (300, 3.0)])
def test_with_many_destinations_groups_are_written_less_often(groups, seconds):
    async def main():
        recorder = Recorder(Book())
        for number in range(groups):
            recorder.open(lease(number), lambda _: None)
        assert recorder.flush_seconds == seconds

    asyncio.run(main())
