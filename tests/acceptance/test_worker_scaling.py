"""The supervisor with real children: it grows while the queue is old, with or without Redis."""

from __future__ import annotations

import asyncio
import os
import signal

import orjson
import pytest

from app.domain.documents import Lane
from app.domain.identifiers import new_id
from app.queue.connection import connect_async
from app.queue.intake import Intake
from tests.acceptance.conftest import children, until

MORE_THAN_PREFETCHED = 60


async def append(redis_url):
    """Queue messages with a document each."""
    client = connect_async(redis_url)
    intake = Intake(client, namespace="docyard")
    for _ in range(MORE_THAN_PREFETCHED):
        document = orjson.dumps({"id": str(new_id()), "content": "The shuttle reached orbit."})
        await intake.submit_many([document], Lane.NORMAL)
    await intake.close()
    await client.aclose()


@pytest.mark.timeout(120)
def test_a_queue_that_ages_adds_a_process_and_a_dead_redis_changes_nothing(
    make_system, make_postgres, make_valkey
):
    postgres, valkey = make_postgres(), make_valkey()
    # Nothing can be stored, so what is queued gets old.
    postgres.kill()
    asyncio.run(append(valkey.url))
    system = make_system(postgres.url, valkey.url, WORKER_MAX="2")
    worker = system.start("worker", "--only", "ingest")
    assert until(lambda: len(children(worker.pid)) == 1, 20)
    assert until(lambda: len(children(worker.pid)) == 2, 20), system.logs()

    valkey.kill()
    (log,) = system.folder.glob("worker-*.log")
    assert until(lambda: "queue.age_unknown" in log.read_text(), 20)
    before = set(children(worker.pid))
    os.kill(min(before), signal.SIGKILL)
    assert until(lambda: set(children(worker.pid)) - before, 20), system.logs()
    assert until(lambda: len(children(worker.pid)) == 2, 5)

    valkey.start()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 0, system.logs()
