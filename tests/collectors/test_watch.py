"""A process in which no Python runs any more ends itself."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from tests.acceptance.conftest import PROJECT

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
