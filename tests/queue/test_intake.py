"""Group commit: durable before the answer, in order, bounded, and never twice."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid

import pytest
import redis

from app.domain.documents import Lane
from app.domain.errors import QueueFull, QueueUnavailable, SettingsInvalid
from app.queue.connection import connect_async, connection_options
from app.queue.depth import depths
from app.queue.durability import judge, require
from app.queue.intake import Intake, IntakeLimits


def encoded(n=0, size=10):
    return json.dumps({"id": str(uuid.uuid4()), "content": f"{n} " + "x" * size}).encode()


def queued(url, lane="ingest"):
    client = redis.Redis.from_url(url)
    ids = client.lrange(f"docyard:{lane}", 0, -1)
    messages = [json.loads(client.hget(f"docyard:{lane}.msgs", one)) for one in ids]
    client.close()
    return messages


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


def test_a_document_is_in_redis_when_submit_returns(redis_url):
    body = encoded()
    run(redis_url, lambda intake: intake.submit(body, Lane.NORMAL))
    (message,) = queued(redis_url)
    assert message["kwargs"]["documents"] == [json.loads(body)]
    assert message["actor_name"] == "chunk.ingest"
    assert message["options"]["redis_message_id"] == message["message_id"]


def test_documents_that_arrive_together_share_a_chunk_and_keep_their_order(redis_url):
    bodies = [encoded(n) for n in range(40)]

    async def work(intake):
        await asyncio.gather(*(intake.submit(body, Lane.NORMAL) for body in bodies))

    run(redis_url, work)
    messages = queued(redis_url)
    assert len(messages) < 3
    documents = [one for message in messages for one in message["kwargs"]["documents"]]
    assert documents == [json.loads(body) for body in bodies]


def test_order_numbers_rise_over_chunks_lanes_and_processes(redis_url):
    async def work(intake):
        for lane in (Lane.NORMAL, Lane.HIGH, Lane.NORMAL):
            await intake.submit_many([encoded(), encoded(), encoded()], lane)

    run(redis_url, work)
    run(redis_url, work)
    firsts = {}
    for lane in ("ingest", "ingest.high"):
        for message in queued(redis_url, lane):
            firsts[message["kwargs"]["seq"]] = len(message["kwargs"]["documents"])
    numbers = sorted(firsts)
    assert len(numbers) == 6
    assert all(b - a >= firsts[a] for a, b in itertools.pairwise(numbers))


def test_order_numbers_never_go_back_with_the_clock_of_redis(redis_url):
    client = redis.Redis.from_url(redis_url)
    future = 4_000_000_000_000_000
    client.set("docyard:seq", future)
    run(redis_url, lambda intake: intake.submit(encoded(), Lane.NORMAL))
    assert queued(redis_url)[0]["kwargs"]["seq"] == future + 1
    client.close()


def test_chunks_are_bounded_by_documents_and_bytes(redis_url):
    limits = IntakeLimits(chunk_documents=10, chunk_bytes=5_000)

    async def work(intake):
        await intake.submit_many([encoded(n) for n in range(25)], Lane.NORMAL)
        await intake.submit_many([encoded(n, size=2_000) for n in range(4)], Lane.HIGH)
        await intake.submit(encoded(size=50_000), Lane.BULK)

    run(redis_url, work, limits)
    assert [len(one["kwargs"]["documents"]) for one in queued(redis_url)] == [10, 10, 5]
    assert [len(one["kwargs"]["documents"]) for one in queued(redis_url, "ingest.high")] == [2, 2]
    assert len(queued(redis_url, "ingest.bulk")) == 1


def test_a_client_that_goes_away_does_not_take_its_chunk_along(redis_url):
    async def work(intake):
        tasks = [asyncio.create_task(intake.submit(encoded(n), Lane.NORMAL)) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = run(redis_url, work)
    assert (first, third) == (None, None)
    assert isinstance(second, asyncio.CancelledError)
    assert sum(len(one["kwargs"]["documents"]) for one in queued(redis_url)) == 3


def test_a_doubtful_append_is_repeated_and_lands_once(make_valkey):
    server = make_valkey()
    body = encoded()

    async def work(intake):
        await intake.submit(encoded(), Lane.NORMAL)
        server.pause()
        doubtful = asyncio.create_task(intake.submit(body, Lane.NORMAL))
        # Longer than the answer may take: the append is in the socket, its answer is given up.
        await asyncio.sleep(0.5)
        server.resume()
        await doubtful

    run(server.url, work, IntakeLimits(deadline_seconds=10), answer_seconds=0.2)
    documents = [one for message in queued(server.url) for one in message["kwargs"]["documents"]]
    assert documents.count(json.loads(body)) == 1
    client = redis.Redis.from_url(server.url)
    assert client.hget("docyard:accepted", "ingest") == b"2"
    client.close()


def test_redis_away_is_a_refusal_and_it_comes_back(make_valkey):
    server = make_valkey()

    async def work(intake):
        await intake.submit(encoded(), Lane.NORMAL)
        server.kill()
        with pytest.raises(QueueUnavailable):
            await intake.submit(encoded(), Lane.NORMAL)
        server.start()
        await intake.submit(encoded(), Lane.NORMAL)

    run(server.url, work, IntakeLimits(deadline_seconds=1.0))
    assert len(queued(server.url)) >= 2


def test_what_was_acknowledged_survives_a_kill_of_redis(make_valkey):
    server = make_valkey()
    run(server.url, lambda intake: intake.submit(encoded(7), Lane.NORMAL))
    server.kill()
    server.start()
    assert queued(server.url)[0]["kwargs"]["documents"][0]["content"].startswith("7 ")


def test_a_full_lane_refuses_and_the_others_do_not(redis_url):
    async def work(intake):
        await intake.submit(encoded(), Lane.NORMAL)
        with pytest.raises(QueueFull, match="1 documents are queued"):
            await intake.submit(encoded(), Lane.NORMAL)
        await intake.submit(encoded(), Lane.HIGH)

    run(redis_url, work, IntakeLimits(high_water=dict.fromkeys(Lane, 1)))
    assert len(queued(redis_url)) == 1


def test_intake_ends_long_before_redis_is_out_of_memory(make_valkey):
    server = make_valkey(maxmemory="12mb")

    async def work(intake):
        for count in range(20_000):
            try:
                await intake.submit(encoded(size=20_000), Lane.NORMAL)
            except QueueFull as error:
                return count, str(error)
        return None

    taken, reason = run(server.url, work)
    assert taken > 50
    assert "short of memory" in reason
    client = redis.Redis.from_url(server.url)
    client.set("room", "x" * 500_000)
    client.close()


def test_a_process_holds_a_bounded_number_of_bytes(make_valkey):
    server = make_valkey()
    limits = IntakeLimits(waiting_bytes=50_000)

    async def work(intake):
        server.pause()
        first = [
            asyncio.create_task(intake.submit(encoded(size=20_000), Lane.NORMAL)) for _ in range(2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="this process"):
            await intake.submit(encoded(size=20_000), Lane.NORMAL)
        server.resume()
        await asyncio.gather(*first)

    run(server.url, work, limits)


def test_depth_and_age_read_from_the_queue(redis_url):
    run(redis_url, lambda intake: intake.submit(encoded(), Lane.NORMAL))

    async def ask():
        client = connect_async(redis_url)
        try:
            return await depths(client, "docyard", ["ingest", "ingest.bulk"])
        finally:
            await client.aclose()

    normal, bulk = asyncio.run(ask())
    assert (normal.messages, bulk.messages, bulk.oldest_seconds) == (1, 0, None)
    assert 0 <= normal.oldest_seconds < 30


@pytest.mark.parametrize(
    ("appendonly", "appendfsync", "durability"),
    [
        ("yes", "always", "always"),
        ("yes", "everysec", "everysec"),
        ("yes", "no", "none"),
        ("no", "always", "none"),
        (None, None, "unknown"),
    ],
)
def test_durability_is_what_the_two_settings_come_to(appendonly, appendfsync, durability):
    assert judge(appendonly, appendfsync) == durability


def test_less_durability_than_required_is_refused_with_the_remedy():
    require("always", "everysec")
    require("unknown", None)
    with pytest.raises(SettingsInvalid, match="appendfsync always"):
        require("everysec", "always")


@pytest.mark.parametrize(
    ("url", "verify", "expected"),
    [
        ("redis://h", True, None),
        ("redis://h", False, None),
        ("rediss://h", True, None),
        ("rediss://h", False, "none"),
    ],
)
def test_only_tls_without_verification_accepts_any_certificate(url, verify, expected):
    assert connection_options(url, verify_tls=verify).get("ssl_cert_reqs") == expected
