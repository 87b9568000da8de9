"""``up``: what it starts, hands on, says and leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from pathlib import Path

import psycopg
import pytest
import redis

from app.local.folder import KEY_FILE, PROJECT

ORDER = ["Stopping web …", "Stopping worker …", "Stopping postgres …", "Stopping valkey …"]


def told(address: str) -> dict[str, str | None]:
    """Return what the stand-in for the web process found in its environment."""
    with urllib.request.urlopen(f"{address}/readyz", timeout=5) as response:  # noqa: S310 - our own
        return json.load(response)


def stops(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("Stopping ")]


def test_everything_starts_from_nothing_and_ctrl_c_stops_it_in_order_leaving_no_process(launch):
    up = launch(servers="fresh", PYTHONDONTWRITEBYTECODE="1")
    address = up.up()
    found = told(address)

    assert found["DATABASE_URL"].startswith("postgresql+psycopg://app@/postgres?host=/")
    assert found["REDIS_URL"].startswith("unix:///")
    assert found["DESTINATION_ALLOW_CIDRS"] == "127.0.0.0/8,::1/128"
    assert found["ENCRYPTION_KEYS"] == (up.folder.path / KEY_FILE).read_text().strip()
    assert found["PYTHONDONTWRITEBYTECODE"] is None, "it makes every start four times slower"
    assert f"migrating {found['DATABASE_URL']}" in up.said
    assert len(up.family) > 5

    up.wait_until_it_speaks("worker")
    up.signal(signal.SIGINT)
    assert up.end() == 0
    assert stops(up.said) == ORDER
    assert up.survivors() == []
    for part in ("web", "worker"):
        assert f"{part} got SIGTERM" in up.folder.log(part).read_text()
    # Both servers said goodbye: nothing needs recovery.
    assert "database system is shut down" in up.folder.log("postgres").read_text()
    assert "ready to exit" in up.folder.log("valkey").read_text()


def test_the_servers_keep_every_confirmed_write_on_disk(launch):
    found = told(launch(servers=True).up())
    with psycopg.connect(found["DATABASE_URL"].replace("+psycopg", "")) as connection:
        settings = dict(
            connection.execute(
                "SELECT name, setting FROM pg_settings"
                " WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes',"
                " 'listen_addresses')"
            )
        )
    assert settings == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
    }
    with redis.Redis.from_url(found["REDIS_URL"], decode_responses=True) as client:
        assert client.config_get("appendonly", "appendfsync", "maxmemory-policy", "port") == {
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "port": "0",
        }


def write(found: dict[str, str]) -> None:
    with psycopg.connect(found["DATABASE_URL"].replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with redis.Redis.from_url(found["REDIS_URL"]) as client:
        client.set("kept", "42")


def written(found: dict[str, str]) -> bool:
    with psycopg.connect(found["DATABASE_URL"].replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT answer FROM kept").fetchall()
    with redis.Redis.from_url(found["REDIS_URL"]) as client:
        return rows == [(42,)] and client.get("kept") == b"42"


def test_a_second_start_after_sigterm_keeps_the_data(launch):
    first = launch(servers=True)
    write(told(first.up()))
    first.signal(signal.SIGTERM)
    assert first.end() == 0
    assert stops(first.said) == ORDER

    assert written(told(launch(servers=True).up()))


def test_a_launcher_that_is_killed_takes_everything_with_it_and_the_data_stays(launch):
    first = launch(servers=True)
    write(told(first.up()))
    first.wait_until_it_speaks("worker")
    first.signal(signal.SIGKILL)
    first.process.wait()
    first.wait_until_all_are_gone()
    assert "got SIGTERM" in first.folder.log("worker").read_text(), "in good order, that is"

    second = launch(servers=True)
    assert written(told(second.up()))
    assert "Stopped what" not in second.said


def test_a_start_right_after_a_kill_waits_until_everything_is_stopped(launch):
    first = launch(worker="worker-stubborn")
    first.up()
    guard = guard_of(first)
    # It takes its time until the second one has begun.
    os.kill(guard, signal.SIGSTOP)
    first.signal(signal.SIGKILL)
    first.process.wait()
    second = launch()
    try:
        second.until("Waiting for the last run to be stopped")
    finally:
        os.kill(guard, signal.SIGCONT)
    second.up()
    assert first.survivors() == []


def guard_of(up) -> int:
    return next(
        pid
        for pid in up.family
        if pid not in {mark.pid for mark in up.folder.run.marks()}
        and os.getsid(pid) == pid
        and b"app.local.guard" in _command(pid)
    )


def kill_launcher_and_guard(up) -> None:
    os.kill(guard_of(up), signal.SIGKILL)
    up.signal(signal.SIGKILL)
    up.process.wait()


def _command(pid: int) -> bytes:
    return subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False
    ).stdout


def test_what_a_killed_launcher_and_a_killed_guard_left_is_stopped_at_the_next_start(launch):
    first = launch(servers=True)
    write(told(first.up()))
    kill_launcher_and_guard(first)
    assert len(first.survivors()) >= 4, "the parts must have outlived it, or this tests nothing"

    second = launch(servers=True)
    found = told(second.up())
    assert "Stopped what a killed run had left: web, worker, postgres, valkey." in second.said
    assert first.survivors() == []
    assert written(found)


def test_servers_without_a_mark_are_found_by_their_own_traces(launch):
    first = launch(servers=True)
    write(told(first.up()))
    # Killed between starting a server and noting it: no mark accounts for the servers.
    servers = {name: first.mark(name) for name in ("postgres", "valkey")}
    for name in servers:
        first.folder.run.forget(name)
    kill_launcher_and_guard(first)
    assert set(servers.values()) <= set(first.survivors())

    assert written(told(launch(servers=True).up()))
    assert first.survivors() == []


def test_postgres_starts_although_its_old_process_number_belongs_to_somebody_else(launch):
    first = launch(servers=True)
    write(told(first.up()))
    first.signal(signal.SIGTERM)
    first.end()
    # As in a container that was started again: the number in the file is a stranger's.
    stale = first.folder.path / "postgres" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n/elsewhere\n1\n5432\n/elsewhere\n\n  1  2\nready   \n")
    assert written(told(launch(servers=True).up()))


def test_a_second_launcher_on_the_same_folder_is_refused_with_a_sentence(launch):
    first = launch()
    first.up()
    second = launch()
    assert second.end() == 1
    assert f"is in use by process {first.process.pid}. Stop that one first" in second.said
    assert len(first.survivors()) == len(first.family), "the first one goes on"


def test_a_stranger_with_a_recorded_process_number_is_not_killed(launch, stranger):
    first = launch()
    first.up()
    first.signal(signal.SIGTERM)
    first.end()
    mark = {"name": "worker", "pid": stranger.pid, "stamp": "another boot/1"}
    rule = {"stop_signal": 9, "stop_rank": 1, "grace_seconds": 1.0}
    (first.folder.run.path / "worker.pid").write_text(json.dumps(mark | rule))
    second = launch()
    second.up()
    assert "Stopped what" not in second.said
    assert stranger.poll() is None


def test_a_port_in_use_is_said_with_a_free_one_and_nothing_is_started(launch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = launch(port=port)
        assert up.end() == 1
    assert f"Port {port} on 127.0.0.1 is in use by another program." in up.said
    free = int(re.search(r"PORT=(\d+) make up", up.said)[1])
    assert free != port
    assert up.folder.run.marks() == []


@pytest.mark.parametrize(
    ("named", "started", "not_started"),
    [("DATABASE_URL", "valkey", "postgres"), ("REDIS_URL", "postgres", "valkey")],
)
def test_a_server_that_the_environment_names_is_used_instead(launch, named, started, not_started):
    url = {"DATABASE_URL": "postgresql://u@db/x", "REDIS_URL": "redis://cache/0"}[named]
    up = launch(servers=True, **{named: url})
    assert told(up.up())[named] == url
    names = {mark.name for mark in up.folder.run.marks()}
    assert started in names
    assert not_started not in names


def test_a_part_that_dies_at_the_start_is_said_with_the_end_of_its_log(launch):
    up = launch(web="web-dies")
    assert up.end() == 1
    assert "The part 'web' ended by itself (exit code 1). The end of " in up.said
    assert "web speaks\nout of cheese" in up.said
    assert up.folder.run.marks() == []


@pytest.mark.parametrize("part", ["web", "worker", "postgres", "valkey"])
def test_a_part_that_is_killed_later_is_said_and_the_rest_stopped(launch, part):
    up = launch(servers=part in {"postgres", "valkey"})
    up.up()
    os.kill(up.mark(part), signal.SIGKILL)
    assert up.end() == 1
    assert f"The part '{part}' was killed (SIGKILL). The end of " in up.said
    up.wait_until_all_are_gone()


def test_a_part_that_does_not_end_in_time_is_killed(launch):
    up = launch(worker="worker-stubborn")
    up.up()
    up.wait_until_it_speaks("worker")
    up.signal(signal.SIGTERM)
    assert up.end() == 0
    assert "worker did not end within 0 s: killed." in up.said
    assert up.survivors() == []


def test_a_second_ctrl_c_does_not_wait_for_web_and_worker(launch):
    up = launch(worker="worker-slow")
    up.up()
    up.signal(signal.SIGINT)
    up.until("Stopping worker")
    up.signal(signal.SIGINT)
    assert up.end() == 0
    assert "did not end" not in up.said
    assert up.survivors() == []


def test_only_a_second_ctrl_c_is_in_a_hurry(launch):
    # A terminal that is closed tells its programs, and so does the shell in it.
    up = launch(worker="worker-stubborn")
    up.up()
    up.signal(signal.SIGHUP)
    up.until("Stopping worker")
    up.signal(signal.SIGHUP)
    assert up.end() == 0
    assert "worker did not end within 0 s: killed." in up.said
    assert up.survivors() == []


@pytest.mark.parametrize("ignored", [True, False])
def test_the_end_of_the_terminal_stops_it_unless_nohup_said_otherwise(launch, ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    up = launch(popen={"restore_signals": False})
    signal.signal(signal.SIGHUP, before)
    up.up()
    up.signal(signal.SIGHUP)
    if ignored:
        # It goes on, so it notices what happens next.
        os.kill(up.mark("worker"), signal.SIGKILL)
    assert up.end() == (1 if ignored else 0)
    assert ("was killed" in up.said) is ignored
    assert up.survivors() == []


def test_ctrl_c_while_the_servers_start_leaves_nothing(launch):
    up = launch(servers="fresh")
    up.until("Starting PostgreSQL")
    # In the middle of initdb, which no mark accounts for yet.
    deadline = time.monotonic() + 20
    while not (up.folder.path / "postgres.new").exists():
        assert time.monotonic() < deadline
    up.signal(signal.SIGINT)
    up.look_around()
    assert up.end() == 0
    assert "stopped early" in up.said
    assert "up at" not in up.said
    assert up.survivors() == []
    assert up.folder.run.marks() == []


def test_a_folder_whose_path_is_too_long_for_sockets_works_all_the_same(launch, place):
    up = launch(servers=True, folder=place / ("long" * 30) / "d")
    found = told(up.up())
    assert "longlong" not in found["DATABASE_URL"]
    elsewhere = Path(found["DATABASE_URL"].split("host=")[1]).parent
    assert elsewhere.stat().st_mode & 0o077 in {0, 0o011}, "nobody else can look inside"
    write(found)
    assert written(found)
    up.signal(signal.SIGTERM)
    up.end()
    assert not elsewhere.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives Postgres to another account")
def test_under_root_postgres_runs_as_nobody_even_in_a_folder_closed_to_nobody(launch, place):
    closed = place / "root"
    closed.mkdir(mode=0o700)
    up = launch(servers=True, folder=closed / "d")
    found = told(up.up())
    assert Path(f"/proc/{up.mark('postgres')}").owner() == "nobody"
    assert (closed / "d" / "postgres").stat().st_uid == pwd.getpwnam("nobody").pw_uid
    assert closed.stat().st_mode & 0o777 == 0o700, "nobody's way in was not opened"
    write(found)
    up.signal(signal.SIGTERM)
    up.end()
    assert written(told(launch(servers=True, folder=closed / "d").up()))


@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests run as an ordinary user then")
def test_an_ordinary_user_needs_no_rights_but_to_the_folder(launch, place):
    nobody = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/"}
    # The tests' own Python may lie where only root can go.
    usable = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            if subprocess.run([python, "-c", usable], check=False, **nobody).returncode == 0:
                nobody |= {"executable": python, "cwd": PROJECT}
                break
    else:
        pytest.skip("no Python that an ordinary user could run")
    home = place / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 65534, 65534)
    packages = sysconfig.get_path("purelib")
    up = launch(servers="fresh", folder=home / "d", popen=nobody, PYTHONPATH=packages)
    up.up()
    assert {path.stat().st_uid for path in home.rglob("*")} == {65534}
    assert (home / "d").stat().st_mode & 0o777 == 0o700
    up.signal(signal.SIGINT)
    assert up.end() == 0
    assert up.survivors() == []


def test_a_folder_that_is_not_ours_is_left_alone(launch, place):
    (place / "d").mkdir()
    (place / "d" / "thesis.txt").write_text("years of work")
    up = launch()
    assert up.end() == 1
    assert "was not made by Docyard, so it is left alone" in up.said
    assert [path.name for path in (place / "d").iterdir()] == ["thesis.txt"]


def test_logs_of_the_last_run_are_kept_once(launch):
    for _ in range(2):
        up = launch()
        up.up()
        up.signal(signal.SIGTERM)
        up.end()
    logs = up.folder.path / "logs"
    assert sorted(path.name for path in logs.iterdir()) == [
        "web.log",
        "web.log.1",
        "worker.log",
        "worker.log.1",
    ]
