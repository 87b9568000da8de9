"""A bulk load through the real processes: counted to the end, within few connections."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
import redis

from app.main import POOL_SIZE
from app.queue.connection import MOST_CONNECTIONS
from tests.acceptance.conftest import until
from worker.main import _pool_size

REDIS_PLAN, POSTGRES_PLAN = 18, 15
"""Small plans of platforms allow 20 connections each; a console wants one as well."""
SINGLES = 200


def test_a_bulk_load_is_counted_from_the_upload_to_the_last_delivery(
    make_system, database_url, redis_url, receiver
):
    system = make_system(database_url, redis_url)
    system.start_web()
    system.start("worker", "--worker-max", "1")
    status, _ = system.post("/destinations", {"key": "a", "url": receiver.url})
    assert status == 201
    used = {"redis": 0, "postgres": 0}
    done = threading.Event()
    watching = threading.Thread(target=watch, args=(database_url, redis_url, used, done))
    watching.start()

    same = str(uuid.uuid4())
    lines = [b'{"content": "the shuttle reached orbit %d"}' % n for n in range(3_000)]
    lines += [b'{"content": "%d", "id": "%b"}' % (n, same.encode()) for n in range(3)]
    lines += [b"{}"]

    def single(number):
        """Send a document and read it back as soon as it is stored, as clients do besides."""
        accepted = system.post("/documents", {"content": f"document {number}"})[1]
        return system.get_stored(accepted["id"])["content"]

    with ThreadPoolExecutor(16) as pool:
        singles = pool.map(single, range(SINGLES))
        status, summary = system.post("/documents/bulk", b"\n".join(lines))
        assert list(singles) == [f"document {number}" for number in range(SINGLES)]
    assert status == 202
    assert (summary["accepted"], summary["rejected"]) == (3_003, 1)
    _, other = system.post("/documents/batch", [{"content": "hockey"}, {"content": "crypt"}])

    def ended(batch):
        found = system.get(f"/batches/{batch}")[1]
        return found if not (found["queued"] or found["open"]) else None

    found = until(lambda: ended(summary["id"]), 60)
    assert found, system.logs()
    assert found["intake"] == "complete"
    assert (found["stored"], found["stale"], found["rejected"]) == (3_001, 2, 0)
    assert found["planned"] == found["delivered"] + found["superseded"]
    assert found["delivered"] == 3_001
    assert until(lambda: ended(other["id"]), 60)["delivered"] == 2
    # Redis forgets a batch that is finished; what is known of it stays the same.
    client = redis.Redis.from_url(redis_url)
    assert until(lambda: not client.exists(f"docyard:batch:{summary['id']}"), 20)
    client.close()
    assert system.get(f"/batches/{summary['id']}")[1] == found

    done.set()
    watching.join()
    assert 0 < used["redis"] <= REDIS_PLAN
    assert 0 < used["postgres"] <= POSTGRES_PLAN


def test_pools_allow_no_more_whatever_the_load():
    processes = 3  # the web, and a worker at its smallest: it scales nothing, so it asks nothing
    assert processes * MOST_CONNECTIONS <= REDIS_PLAN
    assert POOL_SIZE + _pool_size(["ingest"]) + _pool_size(["delivery"]) <= POSTGRES_PLAN


def watch(database_url, redis_url, used, done):
    """Keep the most connections that were seen at a time, ours not counted."""
    client = redis.Redis.from_url(redis_url)
    plain = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as connection:
        while not done.wait(0.05):
            used["redis"] = max(used["redis"], len(client.client_list()) - 1)
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'docyard-%'"
            ).fetchone()
            used["postgres"] = max(used["postgres"], row[0])
    client.close()
