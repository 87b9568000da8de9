"""Rows whose attempts wait: what becomes of them while they are written down."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

from app.storage.leases import Lease
from tests.delivery.test_workload import due
from worker.suspended import Suspended


class SlowOutbox:
    """Parks when it is told to."""

    lease_seconds = 0.03

    def __init__(self) -> None:
        self.parked: list[tuple[list[int], float]] = []
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()

    async def park(self, _lease, rows, seconds):
        self.parked.append(([key.seq for key, _ in rows], seconds))
        self.began.set()
        await self.may_end.wait()


def make_suspended(outbox: SlowOutbox) -> Suspended:
    lease = Lease(
        tenant_id=1,
        destination_id=uuid.uuid4(),
        holder="me",
        epoch=1,
        lost_leases=0,
        acquired_at=datetime.now(UTC),
    )
    return Suspended(lease, outbox)


def test_what_ends_while_it_is_parked_keeps_nothing_else_from_being_given_back():
    async def run():
        outbox = SlowOutbox()
        suspended = make_suspended(outbox)
        ended, waiting = due(1), due(2)
        suspended.add(ended)
        suspended.add(waiting)
        await outbox.began.wait()
        ending = asyncio.create_task(suspended.discard(ended))
        await asyncio.sleep(0)
        assert not ending.done()
        outbox.may_end.set()
        await ending
        assert suspended.parked == {waiting.key}
        await suspended.give_back()
        return outbox.parked

    assert asyncio.run(run())[-1] == ([2], 0)


def test_what_is_being_parked_at_the_end_is_given_back_behind_it():
    async def run():
        outbox = SlowOutbox()
        suspended = make_suspended(outbox)
        suspended.add(due(1))
        await outbox.began.wait()
        asyncio.get_running_loop().call_soon(outbox.may_end.set)
        await suspended.give_back()
        return [seconds for _, seconds in outbox.parked]

    assert asyncio.run(run()) == [0.06, 0]
