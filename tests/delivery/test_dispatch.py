import asyncio
import resource

from app.domain.concurrency import FixedConcurrency
from app.domain.deliveries import Outcome, OutcomeKind
from tests.delivery.test_workload import due
from worker.dispatch import FLOOR_SOCKETS, Dispatch
from worker.pump import raise_file_limit
from worker.workload import Budget

DONE = Outcome(kind=OutcomeKind.SUCCESS, status=200)


class Desk:
    """Rows to take, and requests that end when the test says so."""

    def __init__(self, rows, *, limit=50, sockets=1000):
        self.rows = [due(seq) for seq in range(rows)]
        self.open = asyncio.Event()
        self.settled = 0
        self.drained = 0
        self.sockets = Budget(sockets)
        self.concurrency = FixedConcurrency(limit)
        self.dispatch = Dispatch(
            self.concurrency,
            self.sockets,
            waiting=lambda: len(self.rows),
            take=lambda: (self.rows.pop(),) if self.rows else None,
            settle=self.settle,
            on_drained=self.on_drained,
        )

    async def settle(self, _):
        await self.open.wait()
        self.settled += 1
        return DONE

    def on_drained(self):
        self.drained += 1


def test_every_row_is_settled_and_every_place_given_back():
    async def run():
        desk = Desk(20, limit=7)
        desk.dispatch.start()
        assert len(desk.dispatch) == desk.concurrency.in_flight == 7
        desk.open.set()
        await desk.dispatch.wait(5)
        await asyncio.sleep(0)
        assert (desk.settled, desk.drained) == (20, 1)
        assert (desk.concurrency.in_flight, desk.sockets.free, len(desk.dispatch)) == (0, 1000, 0)

    asyncio.run(run())


def test_requests_that_are_given_up_give_their_places_back():
    async def run():
        desk = Desk(20, limit=7)
        desk.dispatch.start()
        await asyncio.sleep(0)
        desk.dispatch.give_up()
        await desk.dispatch.wait(5)
        await asyncio.sleep(0)
        assert (desk.settled, desk.drained) == (0, 1)
        assert (desk.concurrency.in_flight, desk.sockets.free) == (0, 1000)

    asyncio.run(run())


def test_a_limit_that_has_fallen_is_kept_to_and_leaves_no_row_behind():
    async def run():
        desk = Desk(20, limit=5)
        desk.dispatch.start()
        desk.concurrency.limit = 2
        desk.open.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert desk.concurrency.in_flight <= 5
        await desk.dispatch.wait(5)
        assert desk.settled == 20

    asyncio.run(run())


def test_when_others_have_the_sockets_a_destination_has_its_floor():
    async def run():
        desk = Desk(20, sockets=0)
        desk.dispatch.start()
        assert len(desk.dispatch) == FLOOR_SOCKETS
        desk.sockets.free = 3
        desk.dispatch.start()
        assert len(desk.dispatch) == FLOOR_SOCKETS + 3
        desk.dispatch.give_up()
        await desk.dispatch.wait(5)
        await asyncio.sleep(0)
        assert desk.sockets.free == 3

    asyncio.run(run())


def test_the_process_may_open_as_many_files_as_its_hard_limit_allows():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
        limit = raise_file_limit()
        assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= min(hard, 65_536)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
