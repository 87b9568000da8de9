"""The faults of Dramatiq's Redis broker, each run on the stock broker and on ours.

Every scenario returns whether nothing was lost. It must be false on the stock broker, or the test
tests nothing, and true on ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import dramatiq
import dramatiq.worker
import pytest
import redis
from both_brokers import BOTH, NS, Running, ours, stock, until
from dramatiq.common import current_millis
from dramatiq.middleware import Callbacks, GroupCallbacks, Pipelines, default_middleware

from app.queue.retries import HandBack
from worker.middleware import worker_middleware

PROJECT = Path(__file__).parents[2]


@BOTH
def test_l1_a_retry_while_redis_is_down_is_not_lost(make_valkey, make_broker, survives):
    server = make_valkey()
    broker = make_broker(server.url)
    tried, done = Processed(), []
    broker.middleware.insert(0, tried)

    @dramatiq.actor(broker=broker, queue_name="q", max_retries=10, min_backoff=50)
    def work(number):
        if not tried.processed.is_set():
            server.kill()
            message = "fails while Redis is down"
            raise RuntimeError(message)
        done.append(number)

    with Running(broker, server.url) as running:
        work.send(1)
        assert tried.processed.wait(30)
        server.start()
        assert until(lambda: done or running.empty(), 30)
        assert bool(until(lambda: done, 30 if survives else 1.5)) == survives


class Processed(dramatiq.Middleware):
    """Knows when all behind it in the list, who hear of an end before, are done with a message."""

    def __init__(self):
        self.processed = threading.Event()

    def after_process_message(self, broker, message, *, result=None, exception=None):  # noqa: ARG002  (signature)
        self.processed.set()


@BOTH
def test_s1_delayed_messages_come_back_after_redis_restarts(make_valkey, make_broker, survives):
    server = make_valkey()
    broker = make_broker(server.url)
    done = []

    @dramatiq.actor(broker=broker, queue_name="q")
    def work(number):
        done.append(number)

    with Running(broker, server.url) as running:
        work.send_with_options(args=(1,), delay=2500)
        assert until(lambda: running.client.llen(f"{NS}:q.DQ") == 0)
        server.kill()
        server.start()
        assert bool(until(lambda: done, 30 if survives else 5)) == survives


@BOTH
def test_s2_the_delay_consumer_outlives_a_dead_redis(
    make_valkey, make_broker, survives, monkeypatch
):
    server = make_valkey()
    broker = make_broker(server.url)
    done, ahead = [], [0]
    monkeypatch.setattr(dramatiq.worker, "current_millis", lambda: current_millis() + ahead[0])

    @dramatiq.actor(broker=broker, queue_name="q")
    def work(number):
        done.append(number)

    with Running(broker, server.url) as running:
        delayed = running.worker.consumers["q.DQ"]
        # The second waits in memory when the first is released, and has to be put back.
        for number in (1, 2):
            work.send_with_options(args=(number,), delay=600_000)
        assert until(lambda: delayed.delay_queue.qsize() == 2)
        broker.add_middleware(KillAtRelease(server))
        ahead[0] = 600_000
        assert until(lambda: not server_runs(server))
        until(lambda: not delayed.is_alive(), 1.5 if survives else 30)
        server.start()
        until(lambda: len(set(done)) == 2, 30 if survives else 2)
        assert delayed.is_alive() == survives
        assert (set(done) == {1, 2}) == survives


class KillAtRelease(dramatiq.Middleware):
    """Kills Redis at the moment at which a delayed message is put on its queue."""

    def __init__(self, server):
        self.server = server

    def before_enqueue(self, broker, message, delay):  # noqa: ARG002  (signature)
        if self.server is not None:
            server, self.server = self.server, None
            server.kill()


def server_runs(server):
    return server.server.process.poll() is None


@BOTH
def test_s3_a_batch_whose_fetch_timed_out_is_fetched_again(make_valkey, make_broker, survives):
    server = make_valkey()
    broker = make_broker(server.url, answer_seconds=0.3)
    done = []

    @dramatiq.actor(broker=broker, queue_name="q")
    def work(number):
        done.append(number)

    # Fetch by hand what a stalled server hands out without the answer arriving.
    with Running(broker, server.url) as running:
        assert until(lambda: running.worker.consumers["q"].consumer is not None)
        fetch = broker.do_fetch
        lost = []

        def fetch_once_lost(queue, count):
            bodies = fetch(queue, count)
            if bodies and not lost:
                lost.extend(bodies)
                message = "Timeout reading from socket"
                raise redis.TimeoutError(message)
            return bodies

        broker.do_fetch = fetch_once_lost
        for number in range(8):
            work.send(number)
        assert until(lambda: lost)
        until(lambda: len(set(done)) == 8, 30 if survives else 2)
        assert (len(set(done)) == 8) == survives


@BOTH
def test_p1_an_unreadable_message_does_not_hold_up_the_others(make_valkey, make_broker, survives):
    server = make_valkey()
    broker = make_broker(server.url)
    done = []

    @dramatiq.actor(broker=broker, queue_name="q")
    def work(number):
        done.append(number)

    client = redis.Redis.from_url(server.url)
    work.send(1)
    client.hset(f"{NS}:q.msgs", "bad", b"\xff not a message")
    client.rpush(f"{NS}:q", "bad")
    work.send(2)
    work.send(3)
    with Running(broker, server.url) as running:
        until(lambda: len(done) == 3 and running.empty(), 30 if survives else 2)
        assert (sorted(done) == [1, 2, 3] and running.empty()) == survives
        assert bool(client.zscore(f"{NS}:q.XQ", "bad")) == survives
    client.close()


WORKER = """
    import os, sys, threading, time
    import dramatiq, redis
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.middleware import Retries
    from app.queue.broker import HardenedBroker
    from app.queue.connection import connect
    from app.queue.retries import HardenedRetries
    from app.queue.liveness import TerminateOnce

    client = connect(os.environ["URL"])

    class Stopping(dramatiq.Middleware):
        def before_worker_shutdown(self, broker, worker):
            client.rpush("stopping", os.getpid())

    def setup():
        if os.environ["KIND"] == "stock":
            broker = RedisBroker(client=client, namespace="docyard", heartbeat_timeout=1000,
                                 maintenance_chance=1, middleware=[Retries()])
        else:
            # Longer than the machine may stand still: a brother then takes the living for dead.
            broker = HardenedBroker(client, namespace="docyard", heartbeat_timeout_seconds=5.0,
                                    chores_every_seconds=0.3, poll_seconds=0.2,
                                    middleware=[HardenedRetries(), TerminateOnce()])
        broker.add_middleware(Stopping())
        declare(broker)
        dramatiq.set_broker(broker)
        return broker

    def declare(broker):
        @dramatiq.actor(broker=broker, queue_name="q", actor_name="work")
        def work(number, seconds=0.0):
            client.rpush("started", f"{number}:{os.getpid()}")
            time.sleep(seconds)
            client.rpush("done", number)

    if __name__ == "__main__":
        broker = setup()
        pids = [os.fork() for _ in range(2)] if os.environ.get("FORK") else [0]
        if 0 in pids:
            worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
            worker.start()
            threading.Event().wait()
        for pid in pids:
            os.waitpid(pid, 0)
"""


@pytest.fixture
def start_worker(tmp_path):
    """Start worker processes in a session of their own; kill what is left of it at the end."""
    (tmp_path / "faulty_worker.py").write_text(textwrap.dedent(WORKER))
    started = []

    def start(kind, url, *command, **environment):
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.Popen(
            [sys.executable, *(command or ("-m", "faulty_worker"))],
            env={
                **inherited,
                "URL": url,
                "KIND": kind,
                "PYTHONPATH": f"{tmp_path}:{PROJECT}",
                "dramatiq_restart_delay": "200",
                **environment,
            },
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def send(url, *calls):
    broker = stock(url)

    @dramatiq.actor(broker=broker, queue_name="q", actor_name="work")
    def work(number, seconds=0.0):
        """Only to send."""

    for call in calls:
        work.send(*call)
    broker.client.close()


KINDS = pytest.mark.parametrize(
    ("kind", "survives"), [("stock", False), ("ours", True)], ids=["stock", "ours"]
)


@KINDS
def test_d1_sigterm_to_the_whole_group_lets_the_work_finish(
    make_valkey, start_worker, kind, survives
):
    server = make_valkey()
    client = redis.Redis.from_url(server.url)
    send(server.url, (1, 3.0), (2, 3.0))
    process = start_worker(
        kind, server.url, "-m", "dramatiq", "faulty_worker:setup", "-p", "1", "-t", "2"
    )
    assert until(lambda: client.llen("started") == 2, 20)
    # What a platform's signal to every process comes to: the worker hears it, and once more when
    # the master forwards it. Before the first was heard the two may merge into one.
    os.kill(int(client.lindex("started", 0).split(b":")[1]), signal.SIGTERM)
    assert until(lambda: client.llen("stopping") == 1, 20)
    process.terminate()
    process.wait(timeout=30)
    assert (client.llen("done") == 2 and client.hlen(f"{NS}:q.msgs") == 0) == survives
    client.close()


@KINDS
def test_d2_a_forked_worker_that_dies_is_replaced_by_its_brother(
    make_valkey, start_worker, kind, survives
):
    server = make_valkey()
    client = redis.Redis.from_url(server.url)
    start_worker(kind, server.url, FORK="1")
    send(server.url, (1, 30.0))
    assert until(lambda: client.llen("started") == 1, 20)
    # Nor does a brother take for lost what the living one works on.
    assert not until(lambda: client.llen("started") > 1, 1.0)
    os.kill(int(client.lindex("started", 0).split(b":")[1]), signal.SIGKILL)
    restarted = until(lambda: client.llen("started") == 2, 30 if survives else 3)
    assert restarted == survives
    client.close()


@KINDS
def test_d3_a_killed_worker_on_a_quiet_queue_is_taken_over_in_seconds(
    make_valkey, start_worker, kind, survives
):
    server = make_valkey()
    client = redis.Redis.from_url(server.url)
    first = start_worker(kind, server.url)
    send(server.url, (1, 30.0))
    assert until(lambda: client.llen("started") == 1, 20)
    start_worker(kind, server.url)
    assert until(lambda: client.zcard(f"{NS}:__heartbeats__") >= 2, 20)
    first.kill()
    taken_over = until(lambda: client.llen("started") == 2, 30 if survives else 3)
    assert taken_over == survives
    client.close()


def test_l2_our_workers_have_no_middleware_that_loses_a_next_step():
    kinds = {type(one) for one in worker_middleware()}
    assert not kinds & {Callbacks, Pipelines, GroupCallbacks}
    assert {Callbacks, Pipelines} <= set(default_middleware)


def test_a_handed_back_message_goes_to_its_queue_as_it_was(make_valkey):
    server = make_valkey()
    broker = ours(server.url)
    tries = []

    @dramatiq.actor(broker=broker, queue_name="q")
    def work():
        tries.append(1)
        if len(tries) < 3:
            raise HandBack

    with Running(broker, server.url) as running:
        work.send()
        assert until(lambda: len(tries) == 3 and running.empty())


def test_dramatiq_is_the_one_whose_layout_and_script_we_rely_on():
    script = Path(dramatiq.__file__).parent / "brokers" / "redis" / "dispatch.lua"
    assert dramatiq.__version__.startswith("2.2.")
    assert hashlib.sha256(script.read_bytes()).hexdigest() == (
        "ba4d872e4fb204ebc3f73ca4719265a9946d70e847856c125314f01a8c90540c"
    )


def test_the_layout_in_redis_is_the_documented_one(redis_url):
    broker = stock(redis_url)

    @dramatiq.actor(broker=broker, queue_name="q")
    def work(number):
        """Only to send."""

    message = work.send(1)
    client = redis.Redis.from_url(redis_url)
    (redis_id,) = client.lrange(f"{NS}:q", 0, -1)
    body = json.loads(client.hget(f"{NS}:q.msgs", redis_id))
    assert body["message_id"] == message.message_id
    assert body["options"]["redis_message_id"] == redis_id.decode()
    broker.do_fetch("q", 1)
    assert client.smembers(f"{NS}:__acks__.{broker.broker_id}.q") == {redis_id}
    broker.client.close()
    client.close()
