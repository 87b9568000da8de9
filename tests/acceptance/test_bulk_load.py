"""A bulk load through the real processes: counted to the end, within few connections."""

from __future__ import annotations

import threading
import uuid

import psycopg
import redis

from tests.acceptance.conftest import until

REDIS_PLAN, POSTGRES_PLAN = 18, 15
"""Small plans of platforms allow 20 connections each; a console wants one as well."""


def test_a_bulk_load_is_counted_from_the_upload_to_the_last_delivery(
    make_system, database_url, redis_url, receiver
):
    system = make_system(database_url, redis_url)
    system.start_web()
    system.start("worker", "--ingest-processes", "1")
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
    status, summary = system.post("/documents/bulk", b"\n".join(lines))
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
