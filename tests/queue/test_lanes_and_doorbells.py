"""The order of the lanes, doorbells that coalesce, dead letters that leave."""

from __future__ import annotations

import queue
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import redis

from app.queue.connection import connect
from app.queue.dead_letters import move_dead_letters
from app.queue.doorbell import Doorbell
from app.queue.lanes import LaneQueue
from app.queue.wake import WakeListener


def item(lane):
    return SimpleNamespace(message=SimpleNamespace(queue_name=lane))


def order(lanes):
    return [lanes.get_nowait().message.queue_name for _ in range(lanes.qsize())]


def test_the_higher_lane_is_taken_first():
    lanes = LaneQueue()
    for lane in ("ingest.bulk", "ingest", "ingest.high"):
        lanes.put(item(lane))
    assert order(lanes) == ["ingest.high", "ingest", "ingest.bulk"]


def test_a_lower_lane_gets_one_after_eight():
    lanes = LaneQueue(turns=8)
    for _ in range(20):
        lanes.put(item("ingest.high"))
    for _ in range(2):
        lanes.put(item("ingest.bulk"))
    taken = order(lanes)
    assert [place for place, lane in enumerate(taken) if lane == "ingest.bulk"] == [8, 17]


def test_the_lowest_of_three_lanes_does_not_starve():
    lanes = LaneQueue(turns=2)
    for lane in ("ingest.high", "ingest", "ingest.bulk"):
        for _ in range(30):
            lanes.put(item(lane))
    assert "ingest.bulk" in order(lanes)[:12]


def test_a_bulk_load_leaves_threads_to_single_documents():
    bounded = LaneQueue(at_once={"ingest.bulk": 1})
    for _ in range(3):
        bounded.put(item("ingest.bulk"))
    assert bounded.get(timeout=0).message.queue_name == "ingest.bulk"
    with pytest.raises(queue.Empty):
        bounded.get(timeout=0.01)
    bounded.put(item("ingest"))
    with ThreadPoolExecutor(1) as other:
        taken = other.submit(bounded.get, timeout=1).result()
    assert taken.message.queue_name == "ingest"
    # Done with the first, its thread may have the next; one that waits for it is woken.
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(bounded.get, timeout=10)
        bounded.task_done()
        assert waiting.result().message.queue_name == "ingest.bulk"


def test_a_worker_that_stops_finds_all_that_waits():
    bounded = LaneQueue(at_once={"ingest.bulk": 1})
    for _ in range(3):
        bounded.put(item("ingest.bulk"))
    bounded.get(timeout=0)
    assert [bounded.get_nowait().message.queue_name for _ in range(2)] == ["ingest.bulk"] * 2
    with pytest.raises(queue.Empty):
        bounded.get_nowait()


@pytest.fixture
def client(redis_url):
    made = connect(redis_url)
    yield made
    made.close()


def test_a_destination_has_at_most_one_doorbell_until_its_holder_clears_it(client):
    bell, one, two = Doorbell(client, namespace="docyard"), uuid.uuid4(), uuid.uuid4()
    assert bell.ring(1, [one, two]) == 2
    assert bell.ring(1, [one, two]) == 0
    bell.clear(1, one)
    assert bell.ring(1, [one, two]) == 1
    assert client.llen("docyard:deliver") == client.hlen("docyard:deliver.msgs") == 3


def test_a_flag_whose_message_is_gone_stops_nobody_who_knows_that_no_one_holds(client):
    bell, one = Doorbell(client, namespace="docyard"), uuid.uuid4()
    bell.ring(1, [one])
    assert bell.ring_again(1, [one]) == 0, "the message is still to be taken"
    # Taken by a process that stopped, or died, before it read and cleared the flag.
    client.delete("docyard:deliver", "docyard:deliver.msgs")
    assert bell.ring(1, [one]) == 0
    assert bell.ring_again(1, [one]) == 1
    assert bell.ring_again(1, [one]) == 0
    assert client.llen("docyard:deliver") == 1
    assert 0 < client.ttl(f"docyard:rung:1:{one}") <= 30


def test_a_push_is_heard_and_a_killed_redis_is_listened_to_again(make_valkey):
    server = make_valkey()
    client = connect(server.url)
    listener = WakeListener(client, "docyard")
    event = listener.event("q")
    assert event.wait(5)
    for _ in range(2):
        event.clear()
        while not client.publish("docyard:wake:q", ""):
            pass
        assert event.wait(5)
        server.kill()
        server.start()
        assert event.wait(5), "what was pushed meanwhile must be looked for"
    listener.close()
    client.close()


def test_dead_letters_leave_redis_once_they_are_kept(client):
    body = b'{"options": {"traceback": "Traceback\\nValueError: no"}}'
    for number in range(250):
        client.zadd("docyard:q.XQ", {f"m{number}": number})
        client.hset("docyard:q.XQ.msgs", f"m{number}", body)
    kept = []

    def refuse(_):
        message = "the database is away"
        raise redis.ConnectionError(message)

    with pytest.raises(redis.ConnectionError):
        move_dead_letters(client, "docyard", ["q"], refuse)
    assert client.zcard("docyard:q.XQ") == 250
    assert move_dead_letters(client, "docyard", ["q"], kept.extend) == 250
    assert {one.message_id for one in kept} == {f"m{number}" for number in range(250)}
    assert kept[0].reason == "ValueError: no"
    assert not client.exists("docyard:q.XQ", "docyard:q.XQ.msgs")
