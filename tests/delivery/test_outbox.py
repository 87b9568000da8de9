"""The pump's way to Postgres: what stays of a destination behind its release."""

import asyncio

from app.domain.documents import DEFAULT_TENANT
from app.domain.throttle import ThrottleState
from app.storage import leases
from app.storage.engine import transaction
from tests.delivery.conftest import Bells, wait_until
from worker.outbox import Outbox


def test_a_destination_that_is_released_while_it_is_renewed_is_forgotten(yard):
    destination = yard.destination("http://127.0.0.1/")
    with transaction(yard.engine) as connection:
        lease = leases.acquire(connection, DEFAULT_TENANT, destination.id, "me", 60)
    throttle = ThrottleState(limit=1, reason="", memory=None, debt_seconds=0.0)
    outbox = Outbox(yard.engine, Bells(), lease_seconds=60)

    def renewal_waits():
        return yard.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    async def run():
        with transaction(yard.engine) as connection:
            leases.block(connection, lease, None, 0)  # holds the row
            renewing = asyncio.create_task(outbox.renew(lease, throttle, None))
            await asyncio.to_thread(wait_until, renewal_waits)
            renewing.cancel()
            releasing = asyncio.create_task(outbox.release(lease, throttle, None))
            await asyncio.sleep(0)
        await releasing

    asyncio.run(run())
    outbox.close()
    assert yard.runtime(destination).holder is None
    assert outbox._configured._known == {}


def test_a_destination_whose_lease_is_lost_is_forgotten(yard, make_delivery, receiver):
    delivery = make_delivery(lease_seconds=0.6)
    receiver.hangs()
    destination = yard.destination(receiver.url)
    yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.in_flight == 1)
    outbox = delivery.pump._parts.outbox
    assert list(outbox._configured._known) == [destination.id]
    yard.execute("UPDATE destination_runtime SET epoch = epoch + 1, holder = 'another'")
    delivery.wait_until_idle()
    assert outbox._configured._known == {}
