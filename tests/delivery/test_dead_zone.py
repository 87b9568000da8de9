"""A zone whose name servers are dead holds up only the destinations in it."""

import asyncio
from contextlib import asynccontextmanager

from app.storage.engine import make_engine
from tests.delivery.conftest import LOOPBACK, Bells, Delivery, wait_until
from worker import pump as pump_module
from worker import resolver as resolver_module
from worker.attempts import Attempts
from worker.conclusions import Conclusions
from worker.outbox import CONNECTIONS
from worker.pump import Pump, PumpOptions
from worker.sender import Sender
from worker.targets import Targets


class DeadZone:
    """Knows one name; whoever asks for another waits for ever."""

    def __init__(self) -> None:
        self.asked = []

    async def addresses(self, host):
        self.asked.append(host)
        if host.endswith(".dead.test"):
            await asyncio.Event().wait()
        return ["127.0.0.1"]

    async def close(self):
        pass


def test_a_dead_zone_delays_nobody_else(yard, receiver, database_url, monkeypatch):
    monkeypatch.setattr(pump_module, "GRACE_SECONDS", 0.1)
    # Nobody is to come to an end before all wait, however long the machine takes for that.
    monkeypatch.setattr(resolver_module, "LOOKUP_SECONDS", 600)
    names = DeadZone()

    @asynccontextmanager
    async def attempts(options):
        async with Sender(options.allowed, names=names) as sender:
            yield Attempts(sender, Targets(), Conclusions(options.policy))

    engine = make_engine(database_url, application_name="pump", pool_size=CONNECTIONS + 1)
    pump = Pump(engine, Bells(), PumpOptions(allowed=(LOOPBACK,)), attempts)
    pump.start()
    delivery = Delivery(engine, pump, Bells())
    try:
        dead = [
            yard.destination(f"http://d{number}.dead.test/hook", f"d{number}", timeout_seconds=600)
            for number in range(40)
        ]
        for one in dead:
            yard.store(*[yard.document() for _ in range(3)], to=one)
            delivery.deliver(one)
        wait_until(lambda: len(names.asked) == len(dead), 60)
        alive = yard.destination(f"http://alive.test:{receiver.port}/hook", "alive")
        yard.store(*[yard.document() for _ in range(100)], to=alive)
        delivery.deliver(alive)
        wait_until(lambda: yard.states().get("delivered", 0) == 100, 60)
        # None of those that wait has come to its end meanwhile.
        assert [row.attempts for row in yard.rows() if row.destination_id != alive.id] == [0] * 120
    finally:
        pump.stop()
        engine.dispose()
