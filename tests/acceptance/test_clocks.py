"""A delivery process whose machine has the wrong time of day."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.storage.engine import make_engine
from tests.acceptance.conftest import until
from tests.delivery.conftest import Yard

INSIDE = Path(__file__).parents[1] / "chaos" / "inside"
RUNG_SECONDS = 3.0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("ahead_seconds", [600, -600])
def test_a_retry_comes_on_its_rung_whatever_the_clock_of_the_worker_says(
    make_system, database_url, redis_url, receiver, tmp_path, ahead_seconds
):
    clock = tmp_path / "clock"
    clock.write_text(str(ahead_seconds))
    system = make_system(database_url, redis_url, PYTHONPATH=str(INSIDE), CHAOS_CLOCK=str(clock))
    engine = make_engine(database_url, application_name="test", pool_size=1)
    yard = Yard(engine)
    retry = {"schedule_seconds": [RUNG_SECONDS] * 2, "max_age_seconds": 60}
    destination = yard.destination(receiver.url, retry=retry)
    document = yard.one(destination)
    receiver.status = 500
    system.start("worker", "--only", "delivery")
    assert until(lambda: yard.row(document).attempts == 1), system.logs()
    failed_at = time.monotonic()
    assert yard.row(document).state == "pending"
    receiver.status = 200
    assert until(lambda: yard.row(document).state == "delivered", 15), system.logs()
    assert time.monotonic() - failed_at > RUNG_SECONDS / 2
    row = yard.row(document)
    engine.dispose()

    assert len(receiver.received) == 2
    assert abs(row.ended_at - datetime.now(UTC)) < timedelta(seconds=60)
    # What a receiver sees is the machine's time; it refuses what is more than 5 minutes off.
    told = [json.loads(line) for line in system.logs().splitlines() if "clock.differs" in line]
    assert [round(one["ahead_seconds"], -1) for one in told] == [ahead_seconds]
