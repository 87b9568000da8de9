"""A delivery process whose machine has the wrong time of day."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.storage.engine import make_engine
from tests.acceptance.conftest import Receiver, until
from tests.delivery.conftest import Yard

INSIDE = Path(__file__).parents[1] / "chaos" / "inside"
RUNG_SECONDS = 3.0


class RefusesOnce(Receiver):
    """Refuses the first webhook, and knows when each came."""

    def __init__(self):
        super().__init__()
        self.came_at = []

    async def _take(self, request):
        self.came_at.append(time.monotonic())
        self.status = 500 if len(self.came_at) == 1 else 200
        return await super()._take(request)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("ahead_seconds", [600, -600])
def test_a_retry_comes_on_its_rung_whatever_the_clock_of_the_worker_says(
    make_system, database_url, redis_url, tmp_path, ahead_seconds
):
    clock = tmp_path / "clock"
    clock.write_text(str(ahead_seconds))
    system = make_system(database_url, redis_url, PYTHONPATH=str(INSIDE), CHAOS_CLOCK=str(clock))
    engine = make_engine(database_url, application_name="test", pool_size=1)
    yard = Yard(engine)
    retry = {"schedule_seconds": [RUNG_SECONDS] * 2, "max_age_seconds": 60}
    with RefusesOnce() as receiver:
        document = yard.one(yard.destination(receiver.url, retry=retry))
        system.start("worker", "--only", "delivery")
        assert until(lambda: yard.row(document).state == "delivered", 60), system.logs()
    row = yard.row(document)
    engine.dispose()

    first, second = receiver.came_at
    assert second - first > RUNG_SECONDS / 2
    assert abs(row.ended_at - datetime.now(UTC)) < timedelta(seconds=60)
    # What a receiver sees is the machine's time; it refuses what is more than 5 minutes off.
    told = [json.loads(line) for line in system.logs().splitlines() if "clock.differs" in line]
    assert [round(one["ahead_seconds"], -1) for one in told] == [ahead_seconds]
