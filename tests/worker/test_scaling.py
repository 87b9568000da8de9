"""How many processes there are: from the machine, and from the queue's age in simulated time."""

from __future__ import annotations

import os
import sys
import threading

import pytest
import redis

from app.domain.identifiers import new_id
from app.queue.depth import oldest_seconds
from app.queue.names import LANES
from app.settings import Settings
from tests.acceptance.conftest import until
from worker.scaling import IDLE_SECONDS, QueueAge, Scaler
from worker.sizing import Machine, most_ingest_processes, this_machine
from worker.supervisor import Supervisor, supervisor

MIB = 1 << 20


@pytest.mark.parametrize(
    ("cores", "memory_mib", "most"),
    [
        (8, 512, 2),  # a small dyno shows eight cores and has half a gigabyte
        (8, 1024, 5),
        (1, 4096, 1),
        (2, 2048, 2),
        (16, 65536, 16),
        (1, 128, 1),
    ],
)
def test_processes_follow_cores_and_memory(cores, memory_mib, most):
    assert most_ingest_processes(Machine(cores, memory_mib * MIB), 1) == most


@pytest.mark.parametrize(
    ("files", "cores", "memory"),
    [
        ({"cpu.max": "150000 100000", "memory.max": "536870912"}, 2, 512 * MIB),
        ({"cpu.max": "max 100000", "memory.max": "max"}, None, None),
        (
            {
                "cpu/cpu.cfs_quota_us": "50000",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "268435456",
            },
            1,
            256 * MIB,
        ),
        (
            {"cpu/cpu.cfs_quota_us": "-1", "memory/memory.limit_in_bytes": "9223372036854771712"},
            None,
            None,
        ),
        ({}, None, None),
    ],
)
def test_the_limits_of_a_container_count(tmp_path, files, cores, memory):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    found, whole = this_machine(tmp_path), this_machine(tmp_path / "nothing")
    assert found.cores == min(cores or whole.cores, whole.cores)
    assert found.memory == min(memory or whole.memory, whole.memory)


def run(scaler, seconds, age, start=0.0):
    """Look every fifth of a second; return the numbers wanted, without repetitions."""
    seen = []
    for step in range(int(seconds * 5)):
        wanted = scaler.look(start + step / 5, age)
        if not seen or seen[-1] != wanted:
            seen.append(wanted)
    return seen


def test_an_old_queue_adds_one_after_the_other_up_to_the_most():
    assert run(Scaler(1, 4), 60, 3.0) == [2, 3, 4]


def test_a_young_queue_adds_none():
    assert run(Scaler(1, 4), 600, 0.9) == [1]


def test_a_quiet_minute_lets_one_go_and_work_keeps_all():
    scaler = Scaler(2, 4)
    run(scaler, 60, 3.0)
    assert run(scaler, 300, 0.1, start=100) == [4]
    assert run(scaler, IDLE_SECONDS - 1, None, start=400) == [4]
    assert run(scaler, 300, None, start=459) == [4, 3, 2]


def test_a_peak_after_each_quiet_minute_does_not_flap():
    scaler, seen = Scaler(1, 2), []
    for minute in range(20):
        seen += run(scaler, 50, None, start=minute * 60)
        seen += run(scaler, 10, 0.5, start=minute * 60 + 50)
    assert set(seen) == {1}


def test_a_queue_that_does_not_answer_is_no_age():
    answers = iter([3.0, redis.ConnectionError("away"), 2.0])
    asked = threading.Event()

    def ask():
        answer = next(answers, None)
        if isinstance(answer, Exception):
            asked.set()
            raise answer
        return answer

    age = QueueAge(ask)
    age.start()
    assert asked.wait(5)
    assert until(lambda: age.seconds == 2.0, 5)
    assert until(lambda: age.seconds is None, 5)
    age.stop()


def test_the_age_is_that_of_the_oldest_in_any_lane(redis_url):
    client = redis.Redis.from_url(redis_url)
    assert oldest_seconds(client, "docyard", LANES) is None
    client.rpush("docyard:ingest.bulk", str(new_id()))
    assert 0 <= oldest_seconds(client, "docyard", LANES) < 5
    client.close()


def test_children_are_added_and_let_go_as_asked():
    wanted = [1]
    boss = Supervisor({"ingest": 1}, dict(os.environ), lambda _: wanted[0])
    nap = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]

    def look(now):
        boss._scale("ingest", wanted[0], now)
        for child in boss._children:
            child.command = nap
            boss._look_after(child, now)
        boss._leaving = [one for one in boss._leaving if not boss._has_left(one, now)]
        return boss._children, boss._leaving

    look(0.0)
    wanted[0] = 3
    children, _ = look(1.0)
    assert [child.name for child in children] == ["ingest-1", "ingest-2", "ingest-3"]
    pids = {child.name: child.process.pid for child in children}
    wanted[0] = 1
    children, leaving = look(2.0)
    assert [child.process.pid for child in children] == [pids["ingest-1"]]
    processes = [child.process for child in leaving]
    assert until(lambda: not look(3.0)[1], 10)
    assert all(process.poll() is not None for process in processes)
    assert boss._stop() == 0


def test_a_fixed_number_does_not_follow_the_queue():
    boss = supervisor(Settings(ingest_processes=3))
    assert [child.name for child in boss._children] == [
        "ingest-1",
        "ingest-2",
        "ingest-3",
        "delivery-1",
    ]
    assert boss._scale_ingest is None
    assert boss._stop() == 0
    assert [child.kind for child in supervisor(Settings(), "delivery")._children] == ["delivery"]
    assert [child.kind for child in supervisor(Settings(worker_min=2), "ingest")._children] == [
        "ingest",
        "ingest",
    ]
