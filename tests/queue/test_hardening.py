"""What the hardened broker does beyond the faults of the notes; stock, where that differs."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid

import dramatiq
import pytest
import redis
from both_brokers import BOTH, NS, Running, ours, stock, until

from app.domain.documents import Lane
from app.queue.connection import connect_async
from app.queue.depth import depths
from app.queue.intake import Intake
from app.queue.messages import FastEncoder
from app.queue.retries import DelayedInMemory, HandBack
from worker.actors import register_ingest


@BOTH
def test_a_message_that_names_another_queue_does_not_kill_a_working_thread(
    redis_url, make_broker, survives
):
    broker = make_broker(redis_url)
    done = []

    @dramatiq.actor(broker=broker, queue_name="q")
    def work(number):
        done.append(number)

    client = redis.Redis.from_url(redis_url)
    stray = work.message(0).copy(queue_name="other", options={"redis_message_id": "stray"})
    client.hset(f"{NS}:q.msgs", "stray", stray.encode())
    client.rpush(f"{NS}:q", "stray")
    with Running(broker, redis_url, threads=1) as running:
        until(lambda: not client.llen(f"{NS}:q"))
        work.send(1)
        until(lambda: done == [1] and running.empty(), 30 if survives else 1.5)
        assert running.worker.workers[0].is_alive() == survives
        assert (done == [1]) == survives
    assert bool(client.zscore(f"{NS}:q.XQ", "stray")) == survives
    client.close()


@BOTH
def test_s4_an_ack_that_redis_had_no_memory_for_is_made_later(make_valkey, make_broker, survives):
    server = make_valkey()
    broker = make_broker(server.url)
    client = redis.Redis.from_url(server.url)
    finished = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="q")
    def work():
        client.config_set("maxmemory", "100kb")
        finished.set()

    with Running(broker, server.url) as running:
        work.send()
        assert finished.wait(5)
        # Long enough for the ack to be refused once.
        until(lambda: False, 0.5)
        client.config_set("maxmemory", "0")
        assert until(running.empty, 30 if survives else 2) == survives
    client.close()


def test_a_stall_longer_than_the_time_out_in_the_middle_of_the_work_loses_nothing(make_valkey):
    server = make_valkey()
    broker = ours(server.url, answer_seconds=0.2)
    done = set()

    @dramatiq.actor(broker=broker, queue_name="q")
    def work(number):
        threading.Event().wait(0.005)
        done.add(number)

    for number in range(200):
        work.send(number)
    with Running(broker, server.url) as running:
        for stall in range(1, 4):
            assert until(lambda most=50 * stall: len(done) >= most)
            server.pause()
            until(lambda: False, 0.5)
            server.resume()
        assert until(lambda: len(done) == 200 and running.empty(), 30)


def test_an_id_without_a_body_is_forgotten(redis_url):
    broker = ours(redis_url)
    done = []

    @dramatiq.actor(broker=broker, queue_name="q")
    def work():
        done.append(1)

    with Running(broker, redis_url) as running:
        running.client.rpush(f"{NS}:q", "bodiless")
        work.send()
        assert until(lambda: done and not broker.unacknowledged("q"))


def test_ids_in_redis_tell_the_age_of_what_was_enqueued_again(redis_url):
    broker = ours(redis_url)

    @dramatiq.actor(broker=broker, queue_name="ingest")
    def work():
        """Only to send."""

    assert uuid.UUID(work.send().options["redis_message_id"]).version == 7

    async def ask():
        client = connect_async(redis_url)
        try:
            return await depths(client, NS, ["ingest"])
        finally:
            await client.aclose()

    (depth,) = asyncio.run(ask())
    assert 0 <= depth.oldest_seconds < 30
    broker.close()


def test_a_broker_that_closes_hands_back_what_outlasts_the_grace(redis_url):
    broker, brother = ours(redis_url), ours(redis_url)
    begun, go_on = threading.Event(), threading.Event()

    for one in (broker, brother):

        @dramatiq.actor(broker=one, queue_name="q", actor_name="work")
        def work():
            if begun.is_set():
                go_on.set()
            begun.set()
            go_on.wait(10)

    client = redis.Redis.from_url(redis_url)
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    work.send()
    assert begun.wait(5)
    worker.stop(timeout=100)
    broker.close()
    assert client.llen(f"{NS}:q") == 1
    assert client.zscore(f"{NS}:__heartbeats__", broker.broker_id) is None
    with Running(brother, redis_url) as running:
        assert go_on.wait(5)
        assert until(running.empty)
    client.close()


def test_a_retry_that_cannot_even_be_encoded_becomes_a_dead_letter(redis_url):
    broker = ours(redis_url)

    @dramatiq.actor(broker=broker, queue_name="q", max_retries=5)
    def work(items):
        items.append(object())
        message = "and now its arguments are no JSON any more"
        raise RuntimeError(message)

    with Running(broker, redis_url) as running:
        work.send([])
        assert until(lambda: running.client.zcard(f"{NS}:q.XQ") == 1)


def test_a_handed_back_message_counts_no_try_and_logs_no_error(redis_url, caplog):
    broker = ours(redis_url)
    tries = []

    @dramatiq.actor(broker=broker, queue_name="q", max_retries=0)
    def work():
        tries.append(1)
        if len(tries) < 3:
            raise HandBack

    with Running(broker, redis_url) as running:
        work.send()
        assert until(lambda: len(tries) == 3 and running.empty())
        assert not running.client.exists(f"{NS}:q.XQ")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_few_delayed_messages_are_taken_into_memory(redis_url):
    broker = ours(redis_url)
    broker.add_middleware(DelayedInMemory())

    @dramatiq.actor(broker=broker, queue_name="q")
    def work():
        """Only to send."""

    for _ in range(100):
        work.send_with_options(delay=60_000)
    with Running(broker, redis_url) as running:
        assert until(lambda: running.client.llen(f"{NS}:q.DQ") == 100 - 64)
        assert not until(lambda: running.client.llen(f"{NS}:q.DQ") < 100 - 64, 0.5)


def submit(url, count, lane=Lane.NORMAL):
    async def main():
        client = connect_async(url)
        intake = Intake(client, namespace=NS)
        document = json.dumps({"id": str(uuid.uuid4()), "content": "text"}).encode()
        await intake.submit_many([document] * count, lane)
        await client.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("ending", ["done", "retried", "given up", "handed back", "new server"])
def test_documents_are_counted_out_of_the_queue_exactly_once(redis_url, ending):
    broker = ours(redis_url)
    client = redis.Redis.from_url(redis_url)
    tries = []

    def ingest(chunk):
        tries.append(chunk)
        if ending == "new server":
            client.script_flush()
        if len(tries) > 2 or ending == "done":
            return
        if ending == "handed back":
            raise HandBack
        message = "not yet"
        raise RuntimeError(message)

    register_ingest(broker, ingest)
    if ending == "given up":
        broker.get_actor("chunk.ingest").options["max_retries"] = 0
    submit(redis_url, 7, Lane.BULK)
    submit(redis_url, 3, Lane.NORMAL)
    assert client.hgetall(f"{NS}:queued") == {b"ingest.bulk": b"7", b"ingest": b"3"}
    with Running(broker, redis_url, threads=1) as running:
        assert until(lambda: running.empty("ingest") and running.empty("ingest.bulk"))
    assert client.hgetall(f"{NS}:queued") == {b"ingest.bulk": b"0", b"ingest": b"0"}
    assert {len(chunk.documents) for chunk in tries} == {3, 7}
    client.close()


def test_a_chunk_that_is_taken_over_is_counted_out_by_whoever_ends_it(redis_url):
    first = ours(redis_url)
    submit(redis_url, 5)
    register_ingest(first, lambda _: None)
    assert len(first.do_fetch("ingest", 1)) == 1
    second = ours(redis_url)
    register_ingest(second, lambda _: None)
    with Running(second, redis_url) as running:
        assert until(lambda: running.empty("ingest"))
        # What the first one believes is its own is no longer; its late ack changes nothing.
        message = dramatiq.Message.decode(json.dumps(CHUNK).encode())
        first.settle("ack", "ingest", dramatiq.MessageProxy(message))
        assert running.client.hget(f"{NS}:queued", "ingest") == b"0"
    first.close()


CHUNK = {
    "queue_name": "ingest",
    "actor_name": "chunk.ingest",
    "args": [],
    "kwargs": {"documents": [{}] * 5},
    "options": {"redis_message_id": "gone"},
    "message_id": "gone",
    "message_timestamp": 0,
}


def test_the_encoding_takes_what_orjson_does_not():
    broken = {"options": {"traceback": "\ud800"}}
    assert json.loads(FastEncoder().encode(broken)) == broken
    assert FastEncoder().decode(FastEncoder().encode({"a": [1, "ä"]})) == {"a": [1, "ä"]}


def test_stock_ids_tell_no_age(redis_url):
    broker = stock(redis_url)

    @dramatiq.actor(broker=broker, queue_name="q")
    def work():
        """Only to send."""

    assert uuid.UUID(work.send().options["redis_message_id"]).version == 4
    broker.client.close()
