"""Appends under faults: refused at once, repeated in doubt, once in Redis, exact in the counts."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
import uuid

import pytest
import redis

from app.domain.documents import Lane
from app.domain.errors import QueueFull, QueueUnavailable
from app.queue import append
from app.queue.append import MARK_SECONDS, PATIENCE_SECONDS
from app.queue.connection import connect_async
from app.queue.intake import Intake, IntakeLimits, high_water_marks


def encoded(size=10):
    return json.dumps({"id": str(uuid.uuid4()), "content": "x" * size}).encode()


def run(url, work, limits=None, **options):
    async def main():
        client = connect_async(url, **options)
        intake = Intake(client, namespace="docyard", limits=limits)
        try:
            return await work(intake)
        finally:
            await intake.close()
            await client.aclose()

    return asyncio.run(main())


@pytest.fixture
def look():
    """A client per server to look with."""
    clients = []

    def make(url):
        clients.append(redis.Redis.from_url(url))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def sent(client, lane="ingest"):
    """The documents in a lane, by chunk, in order."""
    ids = client.lrange(f"docyard:{lane}", 0, -1)
    chunks = [json.loads(client.hget(f"docyard:{lane}.msgs", one)) for one in ids]
    return [chunk["kwargs"]["documents"] for chunk in chunks]


def test_a_batch_in_doubt_lands_whole_and_once(make_valkey, look):
    server = make_valkey()
    bodies = [encoded() for _ in range(25)]

    async def work(intake):
        await intake.submit(encoded(), Lane.BULK)
        server.pause()
        batch = asyncio.create_task(intake.submit_many(bodies, Lane.BULK))
        await asyncio.sleep(0.5)
        server.resume()
        await batch

    limits = IntakeLimits(chunk_documents=10, deadline_seconds=10)
    run(server.url, work, limits, answer_seconds=0.2)
    client = look(server.url)
    assert list(itertools.chain(*sent(client, "ingest.bulk")[1:])) == [
        json.loads(body) for body in bodies
    ]
    assert client.hgetall("docyard:accepted") == {b"ingest.bulk": b"26"}
    assert client.hgetall("docyard:queued") == {b"ingest.bulk": b"26"}


def test_an_append_that_died_with_its_redis_is_repeated_on_the_next(make_valkey, look):
    server = make_valkey()
    body = encoded()

    async def work(intake):
        await intake.submit(encoded(), Lane.NORMAL)
        server.pause()
        doubtful = asyncio.create_task(intake.submit(body, Lane.NORMAL))
        await asyncio.sleep(0.3)
        server.kill()
        server.start()
        await doubtful

    run(server.url, work, IntakeLimits(deadline_seconds=10), answer_seconds=5)
    assert sent(look(server.url))[1:] == [[json.loads(body)]]


def test_what_stays_in_doubt_is_not_confirmed_and_those_behind_it_do_not_wait_again(make_valkey):
    server = make_valkey()

    async def work(intake):
        await intake.submit(encoded(), Lane.NORMAL)
        server.pause()
        began = time.monotonic()
        first = [asyncio.create_task(intake.submit(encoded(), Lane.NORMAL))]
        await asyncio.sleep(0.1)
        behind = [asyncio.create_task(intake.submit(encoded(), Lane.NORMAL)) for _ in range(5)]
        results = await asyncio.gather(*first, *behind, return_exceptions=True)
        took = time.monotonic() - began
        server.resume()
        return results, took

    limits = IntakeLimits(chunk_documents=1, deadline_seconds=2.0)
    results, took = run(server.url, work, limits, answer_seconds=0.2)
    assert [type(result) for result in results] == [QueueUnavailable] * 6
    assert took < 6, "each for its own deadline would take 12 s"


def test_a_redis_that_is_not_there_is_refused_sooner_than_one_that_does_not_answer(make_valkey):
    server = make_valkey()

    async def work(intake):
        server.kill()
        began = time.monotonic()
        with pytest.raises(QueueUnavailable):
            await intake.submit(encoded(), Lane.NORMAL)
        return time.monotonic() - began

    took = run(server.url, work, IntakeLimits(deadline_seconds=30))
    assert took < 10, "that is not the deadline"


def test_a_short_restart_of_redis_is_no_error_to_anybody(make_valkey, look, monkeypatch):
    # A busy machine needs longer for it.
    monkeypatch.setattr(append, "PATIENCE_SECONDS", PATIENCE_SECONDS * 20)
    server = make_valkey()

    async def work(intake):
        # No connection yet, so that there is no doubt: it is refused until the server is back.
        server.kill()
        again = threading.Timer(0.2, server.start)
        again.start()
        await intake.submit(encoded(), Lane.NORMAL)
        again.join()

    run(server.url, work, IntakeLimits(deadline_seconds=30))
    assert len(sent(look(server.url))) == 1


def test_a_redis_that_forgot_the_script_is_taught_it_again(redis_url, look):
    client = look(redis_url)

    async def work(intake):
        await intake.submit(encoded(), Lane.NORMAL)
        client.script_flush()
        await intake.submit(encoded(), Lane.NORMAL)

    run(redis_url, work)
    assert len(sent(client)) == 2


def test_a_read_only_replica_confirms_nothing(make_valkey, look):
    server = make_valkey()
    client = look(server.url)

    async def work(intake):
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(QueueUnavailable):
            await intake.submit(encoded(), Lane.NORMAL)
        client.execute_command("REPLICAOF", "NO", "ONE")
        await intake.submit(encoded(), Lane.NORMAL)

    run(server.url, work)
    assert len(sent(client)) == 1


def test_a_primary_that_was_demoted_is_left_for_the_one_that_has_its_name(
    make_valkey, look, tmp_path
):
    old, new = make_valkey(), make_valkey()
    name = tmp_path / "name"
    name.symlink_to(old.server.socket)

    async def work(intake):
        await intake.submit(encoded(), Lane.NORMAL)
        look(old.url).execute_command("REPLICAOF", "127.0.0.1", "1")
        name.unlink()
        name.symlink_to(new.server.socket)
        await intake.submit(encoded(), Lane.NORMAL)

    run(f"unix://{name}", work)
    assert [len(sent(look(one.url))) for one in (old, new)] == [1, 1]


def test_out_of_memory_is_a_full_queue_and_leaves_nothing_half_done(make_valkey, look, monkeypatch):
    monkeypatch.setitem(append.MEMORY_SHARE, Lane.NORMAL, 1_000)
    server = make_valkey()
    client = look(server.url)

    async def work(intake):
        client.config_set("maxmemory", "100kb")
        with pytest.raises(QueueFull, match="out of memory"):
            await intake.submit_many([encoded()] * 3, Lane.NORMAL)
        assert not client.keys("docyard:*")
        client.config_set("maxmemory", "0")
        await intake.submit(encoded(), Lane.NORMAL)

    run(server.url, work)
    assert len(sent(client)) == 1


def test_intake_resumes_by_itself_when_memory_is_free_again(make_valkey, look):
    url = make_valkey().url
    client = look(url)
    used = client.info("memory")["used_memory"]
    client.config_set("maxmemory", int(used * 1.15))

    async def work(intake):
        with pytest.raises(QueueFull, match="short of memory"):
            await intake.submit(encoded(), Lane.NORMAL)
        client.config_set("maxmemory", used * 4)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            try:
                return await intake.submit(encoded(), Lane.NORMAL)
            except QueueFull:
                await asyncio.sleep(0.05)
        pytest.fail("still short of memory")

    run(url, work)
    assert len(sent(client)) == 1


def test_a_lane_is_full_from_its_mark_on_and_free_below_it(redis_url, look):
    client = look(redis_url)

    async def work(intake):
        # The mark is passed by one call at most, so that a large batch ever gets in.
        await intake.submit_many([encoded()] * 30, Lane.BULK)
        with pytest.raises(QueueFull, match="30 documents are queued"):
            await intake.submit(encoded(), Lane.BULK)
        await intake.submit(encoded(), Lane.NORMAL)
        client.hset("docyard:queued", "ingest.bulk", 9)
        await intake.submit(encoded(), Lane.BULK)

    run(redis_url, work, IntakeLimits(high_water=high_water_marks(20)))


def test_a_count_that_went_wrong_does_not_close_an_empty_lane(redis_url, look):
    client = look(redis_url)
    client.hset("docyard:queued", "ingest", 1_000_000_000)
    run(redis_url, lambda intake: intake.submit(encoded(), Lane.NORMAL))
    assert client.hget("docyard:queued", "ingest") == b"1"


def test_the_bulk_lane_closes_first():
    marks = high_water_marks(1000)
    assert marks[Lane.BULK] < marks[Lane.NORMAL] <= marks[Lane.HIGH]


def test_marks_of_appends_do_not_pile_up(redis_url, look):
    async def work(intake):
        for _ in range(50):
            await intake.submit(encoded(), Lane.NORMAL)

    run(redis_url, work)
    client = look(redis_url)
    marks = client.keys("docyard:appended:*")
    assert len(marks) <= 2, "one for each minute"
    assert all(0 < client.ttl(mark) <= MARK_SECONDS for mark in marks)


def test_a_busy_lane_does_not_hold_up_another(redis_url):
    async def work(intake):
        stop = False

        async def keep_busy():
            while not stop:
                await intake.submit(encoded(), Lane.HIGH)

        busy = [asyncio.create_task(keep_busy()) for _ in range(8)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await intake.submit(encoded(), Lane.BULK)
        stop = True
        await asyncio.gather(*busy)

    run(redis_url, work)


def test_two_processes_never_share_an_order_number(redis_url, look):
    bodies = [[encoded() for _ in range(20)] for _ in range(20)]

    async def main():
        clients = [connect_async(redis_url) for _ in range(2)]
        intakes = [Intake(client, namespace="docyard") for client in clients]
        lanes = list(Lane)
        await asyncio.gather(
            *(intakes[n % 2].submit_many(batch, lanes[n % 3]) for n, batch in enumerate(bodies))
        )
        for client in clients:
            await client.aclose()

    asyncio.run(main())
    client = look(redis_url)
    numbers = []
    for lane in Lane:
        firsts = []
        for one in client.lrange(f"docyard:{lane}", 0, -1):
            chunk = json.loads(client.hget(f"docyard:{lane}.msgs", one))["kwargs"]
            firsts.append(chunk["seq"])
            numbers += range(chunk["seq"], chunk["seq"] + len(chunk["documents"]))
        assert firsts == sorted(firsts), "rising in the order of the list"
    assert len(set(numbers)) == len(numbers) == 400
