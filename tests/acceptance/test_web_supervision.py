"""``serve`` with several processes: restarted, replaced when silent, and gone together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import PROJECT, children, until

IMPATIENT = """
from app.cli import web_supervisor
from app.cli.main import main

web_supervisor.SILENT_SECONDS = 6.0
main()
"""


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def start(make_system, database_url, redis_url):
    """Start a web with two processes; returns the system, the supervisor and its children."""

    def start(*, code=None, **environment):
        system = make_system(database_url, redis_url, WEB_CONCURRENCY="2", **environment)
        web = system.start_web() if code is None else start_with(system, code)
        assert until(lambda: len(children(web.pid)) == 2, 20), system.logs()
        assert until(lambda: system.logs().count("web.started") == 2, 30), system.logs()
        return system, web, children(web.pid)

    return start


def start_with(system, code):
    with (system.folder / "serve.log").open("ab") as log:
        web = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--port", system.hold_port()],
            cwd=PROJECT,
            env=system.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    system.processes.append(web)
    assert until(lambda: system.get("/healthz")[0] == 200, 60), system.logs()
    return web


@pytest.mark.timeout(120)
def test_a_killed_web_process_is_replaced_and_the_other_goes_on(start):
    system, web, (first, second) = start()
    os.kill(first, signal.SIGKILL)
    assert until(lambda: not runs(first), 5)
    assert system.post("/documents", {"content": "a"})[0] == 202
    assert until(lambda: len(children(web.pid)) == 2 and first not in children(web.pid), 20)
    assert second in children(web.pid)
    assert until(lambda: system.logs().count("web.started") == 3, 30)


@pytest.mark.timeout(120)
def test_a_web_process_whose_loop_is_silent_is_replaced(start):
    system, web, (first, second) = start(code=IMPATIENT)
    os.kill(first, signal.SIGSTOP)
    assert until(lambda: first not in children(web.pid) and len(children(web.pid)) == 2, 30)
    assert second in children(web.pid)
    assert '"child.silent"' in system.logs()
    assert until(lambda: system.logs().count("web.started") == 3, 30)
    assert system.post("/documents", {"content": "a"})[0] == 202


@pytest.mark.timeout(120)
def test_sigterm_answers_what_is_under_way_and_refuses_the_rest(start):
    system, web, started = start()
    port = int(system.url.rpartition(":")[2])
    body = b'{"content":"a"}'
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        head = b"POST /documents HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        # By which it is known to be under way: what nobody has read yet may be refused.
        assert client.recv(1000).startswith(b"HTTP/1.1 100")
        web.send_signal(signal.SIGTERM)

        def refused():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) != 0

        assert until(refused, 10)
        client.sendall(body)
        assert client.recv(1000).startswith(b"HTTP/1.1 202")
    assert web.wait(30) == 0
    assert not any(runs(pid) for pid in started)


@pytest.mark.timeout(120)
def test_all_are_gone_when_the_supervisor_is_killed(start):
    system, web, started = start()
    web.kill()
    web.wait()
    assert until(lambda: not any(runs(pid) for pid in started), 30)
    assert system.get("/healthz")[0] == 0


@pytest.mark.timeout(120)
def test_what_refuses_to_start_ends_the_supervisor(make_system, database_url, make_valkey):
    server = make_valkey(appendonly="no")
    for count in ("1", "2"):
        system = make_system(
            database_url, server.url, REQUIRE_DURABILITY="always", WEB_CONCURRENCY=count
        )
        web = system.start("serve", "--port", "0")
        assert web.wait(60) == 3, system.logs()
