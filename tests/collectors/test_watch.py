"""Loops that do not come round are found, and only those."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

from app.collectors import Ok, collector
from tests.acceptance.conftest import PROJECT
from tests.delivery.conftest import wait_until
from worker.collectors.host import CollectorHost
from worker.collectors.watch import LOOK_EVERY_SECONDS, WatchOptions, watch


@collector("any")
async def unused(payload, ctx):  # noqa: ARG001
    return Ok()


@pytest.fixture
def host():
    host = CollectorHost({"any": unused})
    host.start()
    wait_until(lambda: host.ready)
    yield host
    host.stop()


HUNG = """
    import asyncio
    import ctypes
    from types import SimpleNamespace

    from app.collectors import Ok, collector
    from worker.collectors.host import CollectorHost
    from worker.collectors.watch import WatchOptions, watch


    @collector("any")
    async def unused(payload, ctx):
        return Ok()


    async def hang():
        print("hanging", flush=True)
        ctypes.PyDLL(None).sleep(60)  # and keeps the interpreter's lock


    async def main():
        host = CollectorHost({"any": unused})
        host.start()
        attempts = SimpleNamespace(interrupt=print)
        watching = asyncio.create_task(watch(host, attempts, WatchOptions(hung_seconds=1.0)))
        await asyncio.sleep(0.01)  # it has begun
        while not host.ready:
            await asyncio.sleep(0.01)
        host.submit(hang(), "hang")
        await watching


    asyncio.run(main())
"""


def test_a_process_whose_interpreter_is_held_for_too_long_ends(tmp_path):
    script = tmp_path / "hung.py"
    script.write_text(textwrap.dedent(HUNG))
    done = subprocess.run(
        [sys.executable, script],
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "hanging" in done.stdout
    assert "Timeout (0:00:01)!" in done.stderr
    assert "in hang" in done.stderr


def test_who_was_held_up_himself_blames_nobody(host):
    ended = []

    async def main():
        options = WatchOptions(
            most_seconds=3.0,
            end_in_order=lambda: ended.append("in order"),
            end_at_once=lambda: ended.append("at once"),
        )
        attempts = SimpleNamespace(interrupt=lambda *how: ended.append(how))
        watching = asyncio.create_task(watch(host, attempts, options))
        await asyncio.sleep(0)  # it has begun
        await asyncio.wrap_future(host.submit(asyncio.sleep(0), "behind its first beat"))
        time.sleep(3.5)  # noqa: ASYNC251  (as when the process was stopped)
        await asyncio.wait({watching}, timeout=2 * LOOK_EVERY_SECONDS)
        watching.cancel()

    asyncio.run(main())
    assert ended == []
