"""How many processes there are: from the machine, and from the queue's age in simulated time."""

from __future__ import annotations

import os
import queue
import sys

import pytest
import redis

from app.domain.identifiers import new_id
from app.queue.depth import Waiting, waiting
from app.queue.names import LANES
from app.settings import Settings
from tests.acceptance.conftest import until
from worker.cgroups import Cgroups
from worker.scaling import IDLE_SECONDS, QueueFollower, QueueWatch, Scaler
from worker.sizing import (
    Machine,
    delivery_processes,
    memory_left,
    most_ingest_processes,
    this_machine,
)
from worker.supervisor import Supervisor, supervisor

MIB = 1 << 20


@pytest.mark.parametrize(
    ("cores", "memory_mib", "delivery", "ingest"),
    [
        (8, 512, 1, 1),  # a small dyno shows eight cores and has half a gigabyte
        (8, 1024, 1, 3),
        (1, 4096, 1, 1),
        (2, 2048, 1, 2),
        (8, 14336, 2, 8),
        (16, 65536, 4, 16),
        (16, 2048, 4, 6),
        (1, 128, 1, 1),
    ],
)
def test_processes_follow_cores_and_memory(cores, memory_mib, delivery, ingest):
    machine = Machine(cores, memory_mib * MIB)
    assert delivery_processes(machine) == delivery
    assert most_ingest_processes(machine, delivery) == ingest


def container(folder, files, own):
    for name, content in files.items():
        (folder / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "root" / name).write_text(f"{content}\n")
    (folder / "own").write_text(own)
    return Cgroups(folder / "root", folder / "own")


V1_BELOW = "4:memory:/docker/a1\n1:cpu,cpuacct:/docker/a1\n0::/\n"


@pytest.mark.parametrize(
    ("files", "own", "cores", "memory"),
    [
        ({"cpu.max": "150000 100000", "memory.max": "536870912"}, "0::/\n", 2, 512 * MIB),
        ({"cpu.max": "max 100000", "memory.max": "max"}, "0::/\n", None, None),
        (  # a service of systemd: its own group is below, and one between them is the narrowest
            {"a.slice/memory.max": "268435456", "a.slice/b.service/memory.max": "536870912"},
            "0::/a.slice/b.service\n",
            None,
            256 * MIB,
        ),
        (
            {
                "cpu/cpu.cfs_quota_us": "50000",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "268435456",
            },
            V1_BELOW,  # as the host names it; the container sees only the root of each
            1,
            256 * MIB,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/docker/a1/memory.limit_in_bytes": "134217728",
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
            },
            V1_BELOW,
            None,
            128 * MIB,
        ),
        ({"memory.max": "67108864"}, "0::/../../outside\n", None, 64 * MIB),
        ({}, "", None, None),
    ],
)
def test_the_limits_of_every_group_around_the_process_count(tmp_path, files, own, cores, memory):
    (tmp_path / "none").mkdir()
    whole = this_machine({}, container(tmp_path / "none", {}, ""))
    found = this_machine({}, container(tmp_path, files, own))
    assert found.cores == min(cores or whole.cores, whole.cores)
    assert found.memory == min(memory or whole.memory, whole.memory)


def test_what_the_platform_says_of_a_dyno_counts(tmp_path):
    groups = container(tmp_path, {"memory.max": str(2048 * MIB)}, "0::/\n")
    assert this_machine({"DYNO_RAM": "512"}, groups).memory == 512 * MIB
    assert this_machine({"DYNO_RAM": "4096"}, groups).memory == 2048 * MIB
    assert this_machine({"DYNO_RAM": "much"}, groups).memory == 2048 * MIB


@pytest.mark.parametrize(
    ("files", "own"),
    [
        (
            {
                "memory.max": str(500 * MIB),
                "memory.current": str(450 * MIB),
                "memory.stat": f"anon {300 * MIB}\ninactive_file {100 * MIB}",
            },
            "0::/\n",
        ),
        (
            {
                "memory/memory.limit_in_bytes": str(500 * MIB),
                "memory/memory.usage_in_bytes": str(450 * MIB),
                "memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {100 * MIB}",
            },
            "4:memory:/\n",
        ),
    ],
)
def test_memory_is_left_where_the_container_and_the_machine_have_it(tmp_path, files, own):
    groups, meminfo = container(tmp_path, files, own), tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 9 kB\nMemAvailable:    {200 * 1024} kB\n")
    assert memory_left(groups, meminfo) == 150 * MIB
    meminfo.write_text("MemAvailable:    1024 kB\n")
    assert memory_left(groups, meminfo) == MIB
    (tmp_path / "none").mkdir()
    assert memory_left(container(tmp_path / "none", {}, ""), tmp_path / "no meminfo") is None


def old(seconds, messages=50):
    return Waiting(messages=messages, oldest_seconds=seconds)


IDLE = Waiting(messages=0, oldest_seconds=None)
BUSY = Waiting(messages=50, oldest_seconds=None)


def run(scaler, seconds, waiting, start=0.0, **room):
    """Look every fifth of a second; return the numbers wanted, without repetitions."""
    seen = []
    for step in range(int(seconds * 5)):
        wanted = scaler.look(start + step / 5, waiting, **room)
        if not seen or seen[-1] != wanted:
            seen.append(wanted)
    return seen


def test_an_old_queue_adds_one_after_the_other_up_to_the_most():
    assert run(Scaler(1, 4), 60, old(3.0)) == [1, 2, 3, 4]


def test_what_waited_for_the_start_itself_adds_none():
    scaler = Scaler(1, 4)
    assert run(scaler, 4, old(600.0)) == [1]
    assert run(scaler, 60, old(0.2), start=4) == [1]


def test_a_young_queue_adds_none():
    assert run(Scaler(1, 4), 600, old(0.9)) == [1]


def test_without_room_for_one_more_none_is_added():
    scaler = Scaler(1, 4)
    assert run(scaler, 60, old(3.0), room=lambda: False) == [1]
    assert run(scaler, 3, old(3.0), start=60) == [2]


def test_a_quiet_minute_lets_one_go_and_work_keeps_all():
    scaler = Scaler(2, 4)
    run(scaler, 60, old(3.0))
    assert run(scaler, 300, BUSY, start=100) == [4]
    assert run(scaler, IDLE_SECONDS - 1, IDLE, start=400) == [4]
    assert run(scaler, 300, IDLE, start=459) == [4, 3, 2]


def test_fewer_messages_than_processes_is_quiet_too():
    scaler = Scaler(1, 4)
    run(scaler, 60, old(3.0))
    few = Waiting(messages=2, oldest_seconds=None)
    assert run(scaler, 600, few, start=100) == [4, 3, 2]


def test_a_peak_in_each_minute_does_not_flap():
    scaler, seen = Scaler(1, 2), []
    run(scaler, 10, old(3.0))
    for minute in range(1, 20):
        seen += run(scaler, 50, IDLE, start=minute * 60)
        seen += run(scaler, 10, old(0.5), start=minute * 60 + 50)
    assert set(seen) == {2}


def test_a_queue_that_does_not_say_changes_nothing():
    scaler = Scaler(1, 4)
    run(scaler, 8, old(3.0))
    assert run(scaler, 3_000, None, start=8) == [2]
    # Nor has it been idle in the meantime.
    assert run(scaler, IDLE_SECONDS - 1, IDLE, start=3_008) == [2]


def test_none_is_added_while_one_that_there_should_be_is_not_running():
    watch = QueueWatch(lambda: old(3.0))
    follower = QueueFollower(Scaler(1, 4), watch, lambda: True)
    watch.waiting = old(3.0)
    assert follower.wanted(0.0, settled=True) == 1
    assert follower.wanted(10.0, settled=False) == 1
    assert follower.wanted(10.2, settled=True) == 2


def test_what_waits_is_asked_again_after_every_failure():
    answers = queue.SimpleQueue()

    def ask():
        answer = answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = QueueWatch(ask)
    watch.start()
    for answer in (old(3.0), redis.ConnectionError("away"), old(2.0), ValueError("strange")):
        answers.put(answer)
        known = None if isinstance(answer, Exception) else answer
        assert until(lambda: watch.waiting == known, 20)  # noqa: B023  (asked within the turn)
    watch.stop()
    answers.put(IDLE)


def test_what_waits_is_counted_over_all_lanes_and_as_old_as_the_oldest(redis_url):
    client = redis.Redis.from_url(redis_url)
    assert waiting(client, "docyard", LANES) == IDLE
    broker_ids = [str(new_id()) for _ in range(3)]
    client.hset("docyard:ingest.msgs", broker_ids[0], b"taken by somebody")
    for redis_id in broker_ids[1:]:
        client.hset("docyard:ingest.bulk.msgs", redis_id, b"")
        client.rpush("docyard:ingest.bulk", redis_id)
    found = waiting(client, "docyard", LANES)
    assert found.messages == 3
    assert 0 <= found.oldest_seconds < 5
    client.close()


def test_children_are_added_and_let_go_as_asked():
    boss = Supervisor({"ingest": 1}, dict(os.environ))
    nap = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]

    def look(now, wanted):
        boss._scale("ingest", wanted, now)
        for child in boss._children:
            child.command = nap
            boss._nursery.look_after(child, now)
        boss._leaving = [one for one in boss._leaving if not boss._nursery.has_left(one, now)]
        return boss._children, boss._leaving

    look(0.0, 1)
    children, _ = look(1.0, 3)
    assert [child.name for child in children] == ["ingest-1", "ingest-2", "ingest-3"]
    pids = {child.name: child.process.pid for child in children}
    children, leaving = look(2.0, 1)
    assert [child.process.pid for child in children] == [pids["ingest-1"]]
    processes = [child.process for child in leaving]
    assert until(lambda: not look(3.0, 1)[1], 10)
    assert all(process.poll() is not None for process in processes)
    assert boss._stop() == 0


def kinds(boss):
    found = [child.kind for child in boss._children]
    assert boss._stop() == 0
    return {kind: found.count(kind) for kind in found}


SMALL, LARGE = Machine(8, 512 * MIB), Machine(4, 4096 * MIB)


def test_a_small_machine_gets_one_of_each_and_the_queue_is_not_even_asked(monkeypatch):
    monkeypatch.setattr("worker.supervisor.this_machine", lambda _: SMALL)
    boss = supervisor(Settings())
    assert boss._follower is None
    assert kinds(boss) == {"delivery": 1, "ingest": 1}


def test_a_larger_machine_begins_small_and_follows_the_queue(monkeypatch):
    monkeypatch.setattr("worker.supervisor.this_machine", lambda _: LARGE)
    boss = supervisor(Settings())
    assert boss._follower is not None
    assert kinds(boss) == {"delivery": 1, "ingest": 1}


def test_settings_go_before_what_the_machine_suggests(monkeypatch):
    monkeypatch.setattr("worker.supervisor.this_machine", lambda _: LARGE)
    fixed = supervisor(Settings(ingest_processes=3, delivery_processes=0))
    assert fixed._follower is None
    assert kinds(fixed) == {"ingest": 3}
    assert supervisor(Settings(worker_max=1))._follower is None
    assert kinds(supervisor(Settings(worker_min=2), "ingest")) == {"ingest": 2}
    assert kinds(supervisor(Settings(), "delivery")) == {"delivery": 1}
