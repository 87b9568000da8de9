"""Collectors as users run them: web, worker, Postgres and Valkey, killed where it hurts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from app.collectors import CallFailed, close, collector
from tests.acceptance.conftest import PROJECT, children, until

BASIC = """
    import os
    from contextlib import asynccontextmanager
    from pathlib import Path

    from app.collectors import Error, Ok, collector

    LOG = Path(os.environ["YARD"])


    @asynccontextmanager
    async def opened(ctx):
        ctx.calls = 0
        (LOG / "lifecycle").open("a").write("start\\n")
        yield
        (LOG / "lifecycle").open("a").write(f"stop:{ctx.calls}\\n")


    @collector("archive", topics=["sensor.*"], lifecycle=opened)
    async def archive(payload, ctx):
        ctx.calls += 1
        return Ok({
            "value": payload.value,
            "delivery": payload.delivery,
            "keys": payload.keys,
            "topics": payload.topics,
            "priority": payload.priority,
            "category": payload.prediction.category,
        })


    @collector("refuse")
    async def refuse(payload, ctx):
        return Error("not with me", permanent=True)


    @collector("double")
    async def double(payload, ctx):
        return Ok(2 * payload.value["n"])


    @collector("sum")
    async def sum_up(payload, ctx):
        values = await ctx.gather(*(ctx.call("double", {"n": n}) for n in payload.value))
        more = await ctx.call("double", {"n": 100})
        return Ok([*values, more])
"""


@pytest.mark.timeout(120)
def test_collectors_take_documents_and_their_values_are_shown(
    collectors_yard, database_url, redis_url, monkeypatch
):
    yard = collectors_yard
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    yard.start(BASIC)
    archive = yard.ready("archive")
    assert (archive["kind"], archive["url"], archive["topics"]) == ("collector", None, ["sensor.*"])
    document = yard.send("archive", '{"t": 21}', topics=["sensor.a"], delivery="key", priority=7)
    found = yard.ended(document)
    assert (found["state"], found["destination_url"]) == ("delivered", None)
    category = found["result"].pop("category")
    assert category
    assert found["result"] == {
        "value": {"t": 21},
        "delivery": "key",
        "keys": ["archive"],
        "topics": ["sensor.a"],
        "priority": 7,
    }
    refused = yard.ended(yard.send("refuse"))
    assert (refused["state"], refused["attempts"], refused["last_error"]) == (
        "failed",
        1,
        "not with me",
    )
    assert yard.ended(yard.send("sum", "[1, 2, 3]"))["result"] == [2, 4, 6, 200]
    asyncio.run(dispatch_from_an_application())
    yard.worker.send_signal(signal.SIGTERM)
    assert yard.worker.wait(30) == 0
    now = yard.system.get(f"/destinations/{archive['id']}")[1]
    assert (now["status"], now["enabled"]) == ("unavailable", True)
    assert yard.lines("lifecycle") == ["start", "stop:2"]


async def dispatch_from_an_application() -> None:
    @collector("archive")
    async def archive(*_):
        raise AssertionError("it runs in the worker")

    @collector("refuse")
    async def refuse(*_):
        raise AssertionError("it runs in the worker")

    try:
        handle = await archive.dispatch({"t": 22}, topics=["sensor.b"])
        value = await handle.result(timeout=20)
        assert (value["value"], value["topics"]) == ({"t": 22}, ["sensor.b"])
        status = await handle.status()
        assert (status.state, status.attempts, status.value) == ("delivered", 1, value)
        with pytest.raises(CallFailed, match="not with me"):
            await (await refuse.dispatch("some text"))
        with pytest.raises(TypeError, match="not int"):
            await archive.dispatch(5)
    finally:
        await close()


STEPWISE = """
    import asyncio
    import os
    from pathlib import Path

    from app.collectors import Ok, collector

    LOG = Path(os.environ["YARD"])


    def note(name, word):
        with (LOG / name).open("a") as file:
            file.write(f"{word}\\n")


    @collector("child")
    async def child(payload, ctx):
        note("child", payload.value["n"])
        return Ok(10 * payload.value["n"])


    @collector("parent")
    async def parent(payload, ctx):
        note("parent", "begins")
        first = await ctx.call("child", {"n": 1})
        note("parent", "between")
        while not (LOG / "go").exists():
            await asyncio.sleep(0.02)
        return Ok([first, *await ctx.gather(("child", {"n": 2}), ("child", {"n": 3}))])
"""


@pytest.mark.timeout(120)
def test_a_run_that_was_killed_begins_anew_and_repeats_none_of_its_calls(collectors_yard):
    yard = collectors_yard
    yard.start(STEPWISE, LEASE_SECONDS="1", INGEST_PROCESSES="1")
    document = yard.send("parent")
    assert until(lambda: "between" in yard.lines("parent"), 40), yard.system.logs()
    os.kill(yard.collectors_pid(), signal.SIGKILL)
    (yard.folder / "go").touch()
    found = yard.ended(document)
    assert found["result"] == [10, 20, 30]
    assert yard.lines("parent") == ["begins", "between"] * 2
    assert sorted(yard.lines("child")) == ["1", "2", "3"]


MANY = """
    import asyncio

    from app.collectors import Ok, collector


    @collector("double")
    async def double(payload, ctx):
        await asyncio.sleep(0.05)
        return Ok(2 * payload.value["n"])


    @collector("sum")
    async def sum_up(payload, ctx):
        n = payload.value["n"]
        one = await ctx.call("double", {"n": n})
        values = await ctx.gather(ctx.call("double", {"n": one}), ctx.call("double", {"n": n}))
        return Ok(sum(values))
"""


@pytest.mark.timeout(180)
def test_nothing_is_lost_whoever_is_killed(collectors_yard):
    yard = collectors_yard
    yard.start(MANY, LEASE_SECONDS="1", INGEST_PROCESSES="1")
    yard.ready("sum")
    documents = {}
    for n in range(60):
        documents[yard.send("sum", f'{{"n": {n}}}')] = n
        if n == 20:
            until(lambda: yard.rows("SELECT 1 FROM delivery_steps LIMIT 1"))
            for pid in children(yard.worker.pid):
                os.kill(pid, signal.SIGKILL)
        if n == 40:
            yard.ready("sum")
            left = children(yard.worker.pid)
            yard.worker.kill()
            yard.worker.wait()
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            yard.worker = yard.system.start("worker")
    for document, n in documents.items():
        assert yard.ended(document, 60)["result"] == 6 * n
    steps = yard.rows("SELECT state, count(*) FROM delivery_steps GROUP BY state")
    assert steps == [("done", 180)]
    planned = "SELECT count(*), count(DISTINCT document_id), min(state) FROM deliveries"
    assert yard.rows(planned) == [(240, 240, "delivered")]


FRAGILE = """
    import ctypes

    from app.collectors import Ok, collector


    @collector("fragile")
    async def fragile(payload, ctx):
        if payload.value == "boom":
            ctypes.string_at(0)
        return Ok(payload.value)
"""


@pytest.mark.timeout(120)
def test_a_document_that_kills_the_process_is_put_off_and_others_get_through(collectors_yard):
    yard = collectors_yard
    yard.start(FRAGILE, LEASE_SECONDS="1", INGEST_PROCESSES="1")
    yard.ready("fragile")
    # Behind the second process that died of something here; three take 20 s.
    yard.rows(
        "INSERT INTO destination_runtime (tenant_id, destination_id, epoch, holder,"
        " lease_expires_at, lost_leases) SELECT 1, id, 7, 'dead', now(), 1 FROM destinations"
    )
    before = yard.collectors_pid()
    poison = yard.send("fragile", "boom")
    others = [yard.send("fragile", f"good {n}") for n in range(5)]
    assert [yard.ended(one, 60)["result"] for one in others] == [f"good {n}" for n in range(5)]

    def put_off():
        found = yard.delivery(poison)
        return found if found["attempts"] else None

    found = until(put_off, 30)
    assert found, yard.system.logs()
    assert (found["state"], found["result"]) == ("pending", None)
    assert yard.collectors_pid() != before


ONE = """
    from app.collectors import Ok, collector


    @collector("twice")
    async def one(payload, ctx):
        return Ok()
"""


@pytest.mark.parametrize(
    ("modules", "arguments", "sentence"),
    [
        (
            {"first": ONE, "second": ONE},
            (),
            "Two collectors have the key 'twice': first.one and second.one",
        ),
        ({"plain": "VALUE = 1"}, (), "COLLECTORS=plain has no collector"),
        ({"broken": "1 / 0"}, (), "COLLECTORS=broken cannot be imported (ZeroDivisionError"),
        (
            {"sync": ONE.replace("async def", "def")},
            (),
            "(TypeError: the collector 'twice' is not an async function)",
        ),
        ({"odd": ONE.replace("twice", "not a key")}, (), "COLLECTORS=odd cannot be imported"),
        ({}, ("--only", "collectors"), "--only collectors needs COLLECTORS"),
    ],
    ids=["a key twice", "no collector", "no module", "no coroutine", "no key", "no setting"],
)
def test_a_worker_with_wrong_collectors_refuses_to_start(tmp_path, modules, arguments, sentence):
    for name, source in modules.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
    done = subprocess.run(
        [sys.executable, "-m", "app", "worker", *arguments],
        cwd=PROJECT,
        env={
            **os.environ,
            "COLLECTORS": ", ".join(modules),
            "PYTHONPATH": f"{tmp_path}:{PROJECT}",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert sentence in " ".join(done.stderr.split())
