"""The servers that the tests themselves stand on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

PROJECT = Path(__file__).resolve().parents[2]


def query(url: str, statement: str) -> list[tuple]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("_nth", [1, 2])
def test_each_test_has_a_migrated_database_of_its_own(database_url, _nth):
    assert query(database_url, "SELECT count(*) FROM documents") == [(0,)]
    query(database_url, "CREATE TABLE mine ()")


@pytest.mark.parametrize("_nth", [1, 2])
def test_each_test_has_an_empty_valkey_that_writes_through(redis_url, _nth):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.dbsize() == 0
        client.set("mine", 1)
        assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_a_postgres_of_ones_own_can_be_killed_and_started_again(make_postgres):
    server = make_postgres(work_mem="5MB")
    query(server.url, "CREATE TABLE kept AS SELECT 1 AS one")
    server.kill()
    server.start()
    assert query(server.url, "SELECT one FROM kept") == [(1,)]
    assert query(server.url, "SHOW work_mem") == [("5MB",)]
    assert query(server.url, "SHOW fsync") == [("on",)]


def test_a_valkey_of_ones_own_can_be_killed_paused_and_configured(make_valkey):
    server = make_valkey(maxmemory="20mb", enable_debug_command="yes")
    with (
        redis.Redis.from_url(server.url, decode_responses=True) as client,
        redis.Redis.from_url(server.url, socket_timeout=0.1, retry=None) as hurried,
    ):
        client.set("kept", 1)
        server.kill()
        server.start()
        assert client.get("kept") == "1"
        server.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            hurried.get("kept")
        server.resume()
        assert client.config_get("maxmemory") == {"maxmemory": "20971520"}


def test_the_servers_end_with_a_test_process_that_is_killed():
    # The same folder, marks and guard as the session's own, in a process to kill.
    script = """
import sys, tempfile
from pathlib import Path
from tests.conftest import Servers
from app.local.guard import start_guard
folder = Path(tempfile.mkdtemp(prefix="docyard-t-", dir="/tmp"))
servers = Servers(folder)
guard = start_guard(servers.run, remove=folder)
print(servers.valkey({}).pid, guard.pid, folder, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    ) as process:
        _, guard, folder = process.stdout.readline().split()
        assert (Path(folder) / "vk1").exists()
        os.kill(process.pid, signal.SIGKILL)
        # The guard is not ours to wait for; it holds our pipe until it is done.
        assert process.stdout.read() == ""
    wait_for_end(int(guard))
    assert not Path(folder).exists()


def wait_for_end(pid: int) -> None:
    from app.local.processes import Mark, _wait_until_gone, start_stamp

    stamp = start_stamp(pid)
    if stamp is not None:
        mark = Mark(
            name="guard", pid=pid, stamp=stamp, stop_signal=0, stop_rank=0, grace_seconds=0.0
        )
        assert _wait_until_gone(mark, 20.0)
