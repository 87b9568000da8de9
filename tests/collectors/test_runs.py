"""What collectors do within one process: outcomes, calls, blocked loops, lifecycles."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from app.collectors import CallFailed, Context, Error, Ok, collector
from app.domain.deliveries import RetryPolicy
from app.domain.destinations import DestinationChanges
from app.domain.documents import DEFAULT_TENANT
from app.domain.errors import InvalidInput, SettingsInvalid
from app.services.collectors import register_collectors, unavailable_collectors
from app.services.destinations import change_destination, get_destination
from app.storage import steps
from app.storage.engine import transaction
from tests.delivery.conftest import wait_until
from worker import suspended


@collector("echo", documents=False)
async def echo(payload, ctx):  # noqa: ARG001
    return Ok(payload.value)


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError


class Mute:
    def __str__(self):
        raise OSError("it says nothing")


class Unheard(BaseException):
    pass


def answering(answer, **options):
    """Return a collector that gives one answer."""

    @collector("answer", **options)
    async def give(payload, ctx):  # noqa: ARG001
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return give


@pytest.mark.parametrize(
    ("answer", "state", "error"),
    [
        (Ok({"n": 1}), "delivered", None),
        (Ok(), "delivered", None),
        (Error("later"), "pending", "later"),
        (Error("never", permanent=True), "failed", "never"),
        (Error(Mute()), "pending", "OSError: it says nothing"),
        (ValueError("oh\0 no"), "pending", "ValueError: oh\ufffd no"),
        (SystemExit(3), "pending", "SystemExit: 3"),
        (Unspeakable(), "pending", "Unspeakable"),
        (Unheard(), "pending", "Unheard"),
        (CallFailed("x", "gone"), "failed", "The call of 'x' failed: gone"),
        (17, "pending", "it returned int, and neither Ok nor Error"),
        (Ok(object()), "pending", "it cannot"),
        (Ok("x" * 300_000), "delivered", "its value of 300002 bytes was not kept"),
    ],
    ids=[
        "a value",
        "no value",
        "an error",
        "a permanent error",
        "an error that says nothing",
        "an exception",
        "an exit",
        "an exception that says nothing",
        "one that is none of Python's",
        "a failed call",
        "neither",
        "no JSON",
        "too large a value",
    ],
)
def test_an_answer_becomes_an_outcome(make_carrier, desk, answer, state, error):
    carrier = make_carrier(answering(answer))
    row = desk.attempted(desk.store(carrier, "answer"))
    assert (row.state, row.attempts, row.last_status) == (state, 1, None)
    if isinstance(answer, Ok) and not isinstance(answer.value, str | dict | None):
        assert "is not JSON" in row.last_error
    else:
        assert (row.last_error or "").startswith(error or "")
        assert (row.last_error is None) == (error is None)


def test_retry_after_is_waited_for(make_carrier, desk):
    carrier = make_carrier(answering(Error("busy", retry_after=600)))
    row = desk.attempted(desk.store(carrier, "answer"))
    assert 600 <= (row.due_at - row.attempted_at).total_seconds() < 800


@pytest.mark.parametrize(
    "asked", [Decimal(30), True, -(10**300), float("inf"), float("-inf"), timedelta.max]
)
def test_any_number_can_be_waited_for(make_carrier, desk, asked):
    carrier = make_carrier(answering(Error("busy", retry_after=asked)))
    row = desk.attempted(desk.store(carrier, "answer"))
    assert (row.state, row.last_error) == ("pending", "busy")


@pytest.mark.parametrize("asked", ["30", float("nan"), 10**400])
def test_what_cannot_be_waited_for_is_an_exception_like_any_other(make_carrier, desk, asked):
    @collector("busy")
    async def busy(payload, ctx):  # noqa: ARG001
        return Error("busy", retry_after=asked)

    carrier = make_carrier(busy)
    row = desk.attempted(desk.store(carrier, "busy"))
    assert (row.state, row.attempts) == ("pending", 1)
    assert row.last_error.startswith(("TypeError: ", "ValueError: ", "OverflowError: "))


def test_a_run_that_takes_too_long_is_cancelled_and_tried_again(make_carrier, desk):
    cancelled = threading.Event()

    @collector("slow", timeout_seconds=0.2)
    async def slow(payload, ctx):  # noqa: ARG001
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    carrier = make_carrier(slow)
    row = desk.attempted(desk.store(carrier, "slow"))
    assert (row.state, row.last_error) == ("pending", "no result within 0.2 s")
    assert cancelled.wait(5)


def test_a_run_that_is_over_calls_nobody_any_more(make_carrier, desk):
    refused = threading.Event()

    @collector("slow", timeout_seconds=0.2)
    async def slow(payload, ctx):  # noqa: ARG001
        try:
            await asyncio.sleep(60)
        finally:
            try:
                await ctx.call("echo", {})
            except asyncio.CancelledError:
                refused.set()

    carrier = make_carrier(slow, echo)
    assert desk.attempted(desk.store(carrier, "slow")).last_error == "no result within 0.2 s"
    assert refused.wait(15)
    assert desk.rows.execute("SELECT 1 FROM delivery_steps") == []


def test_a_call_that_nobody_waited_for_ends_with_its_run(make_carrier, desk):
    left, release = threading.Event(), threading.Event()

    @collector("child", documents=False)
    async def child(payload, ctx):  # noqa: ARG001
        await asyncio.to_thread(release.wait, 60)
        return Ok()

    @collector("hasty")
    async def hasty(payload, ctx):  # noqa: ARG001
        async def beside():
            try:
                await ctx.call("child", {})
            finally:
                left.set()

        ctx.task = asyncio.create_task(beside())
        await asyncio.sleep(0.1)
        return Ok()

    carrier = make_carrier(hasty, child)
    desk.ended(desk.store(carrier, "hasty"))
    try:
        assert left.wait(15)
    finally:
        release.set()


def test_who_goes_on_behind_his_last_call_has_a_time_limit(make_carrier, desk):
    """Its other call was answered, and this one, made anew, is known to be answered."""
    going_on = threading.Event()

    @collector("slow", timeout_seconds=2.0)
    async def slow(payload, ctx):  # noqa: ARG001
        async def first():
            await ctx.call("echo", {})
            going_on.set()

        await asyncio.gather(first(), ctx.call("echo", {}))
        await asyncio.sleep(60)

    carrier = make_carrier(slow, echo)
    document = desk.rows.document("{}")
    slow_id, echo_id = carrier.destinations["slow"], carrier.destinations["echo"]
    with transaction(desk.rows.engine) as connection:  # in whose way the second call waits
        connection.execute(
            text(
                "INSERT INTO delivery_steps (tenant_id, document_id, seq, destination_id,"
                " generation, number, key, child_document_id, child_seq, child_destination_id,"
                " state) VALUES (1, :id, :seq, :slow, 0, 1, 'echo', gen_random_uuid(), 1, :echo,"
                " 'done')"
            ),
            {"id": document.id, "seq": document.seq, "slow": slow_id, "echo": echo_id},
        )
        desk.rows.store(document, to=SimpleNamespace(id=slow_id))
        carrier.rung.set()
        assert going_on.wait(15)
        wait_until(lambda: desk.row(document).attempts == 1)  # parked, so it has no turn
    row = desk.attempted(document)
    assert row.last_error == "no result within 2 s"


def test_calls_return_values_in_order_and_waiting_takes_no_place(make_carrier, desk):
    @collector("tree")
    async def tree(payload, ctx):
        depth = payload.value["depth"]
        if depth == 0:
            return Ok(1)
        left, right = await ctx.gather(("tree", {"depth": depth - 1}), ("tree", {"depth": 0}))
        alone = await ctx.call("echo", [depth])
        return Ok(left + right + alone[0])

    # One place for all: a parent that kept it would wait for its own children for ever.
    carrier = make_carrier(tree, echo, concurrency=1)
    row = desk.ended(desk.store(carrier, "tree", '{"depth": 4}'))
    assert (row.state, row.value) == ("delivered", 15)
    steps = desk.rows.execute("SELECT state, count(*) FROM delivery_steps GROUP BY state")
    assert [tuple(one) for one in steps] == [("done", 12)]


def test_a_call_that_is_gathered_twice_is_made_once(make_carrier, desk):
    @collector("twice")
    async def twice(payload, ctx):  # noqa: ARG001
        call = ctx.call("echo", [17])
        return Ok(await ctx.gather(call, call))

    assert desk.ended(desk.store(make_carrier(twice, echo), "twice")).value == [[17], [17]]
    assert len(desk.rows.execute("SELECT 1 FROM delivery_steps")) == 1


def test_a_call_that_fails_is_an_exception_where_it_is_awaited(make_carrier, desk):
    @collector("refuse")
    async def refuse(payload, ctx):  # noqa: ARG001
        return Error("not this one", permanent=True)

    @collector("careful")
    async def careful(payload, ctx):  # noqa: ARG001
        try:
            await ctx.call("refuse", {})
        except CallFailed as error:
            return Ok([error.key, error.reason])

    @collector("careless")
    async def careless(payload, ctx):  # noqa: ARG001
        return Ok(await ctx.call("refuse", {}))

    @collector("lost")
    async def lost(payload, ctx):  # noqa: ARG001
        return Ok(await ctx.call("nobody", {}))

    carrier = make_carrier(refuse, careful, careless, lost)
    caught = desk.ended(desk.store(carrier, "careful"))
    assert caught.value == ["refuse", "not this one"]
    uncaught = desk.ended(desk.store(carrier, "careless"))
    assert (uncaught.state, uncaught.attempts) == ("failed", 1)
    missing = desk.attempted(desk.store(carrier, "lost"))
    assert missing.state == "pending"
    assert missing.last_error == "LookupError: no destination has the key 'nobody'"


def test_who_waits_holds_up_no_call_that_has_his_order_number(make_carrier, desk):
    """A call comes right behind its caller, where the next document of the chunk may stand."""
    answered = asyncio.Event()

    @collector("slow", documents=False)
    async def slow(payload, ctx):  # noqa: ARG001
        await answered.wait()
        return Ok()

    @collector("asking")
    async def asking(payload, ctx):
        if payload.value["asks"]:
            await ctx.call(payload.value["asks"], {"asks": None})
        return Ok("answered")

    carrier = make_carrier(slow, asking)
    first = desk.rows.document('{"asks": "asking"}')
    second = desk.rows.document('{"asks": "slow"}', seq=first.seq + 1)
    asked = SimpleNamespace(id=carrier.destinations["asking"])
    desk.rows.store(second, to=asked)
    carrier.rung.set()
    wait_until(lambda: desk.rows.execute("SELECT 1 FROM delivery_steps"))
    desk.rows.store(first, to=asked)
    carrier.rung.set()
    assert desk.ended(first).value == "answered"
    assert desk.row(second).state == "pending"
    carrier.parts.host.loop.call_soon_threadsafe(answered.set)
    assert desk.ended(second).value == "answered"


def test_a_second_run_repeats_no_call_that_was_made(make_carrier, desk):
    made: list[str] = []

    @collector("count")
    async def count(payload, ctx):  # noqa: ARG001
        made.append("child")
        return Ok(len(made))

    @collector("parent")
    async def parent(payload, ctx):
        first = await ctx.call("count", {})
        if payload.attempt == 1:
            return Error("once more")
        return Ok([first, await ctx.call("count", {})])

    carrier = make_carrier(count, parent, policy=RetryPolicy(ladder_seconds=(0.1,), jitter=0))
    row = desk.ended(desk.store(carrier, "parent"))
    assert (row.attempts, row.value, made) == (2, [1, 2], ["child"] * 2)


def test_a_function_that_changed_its_calls_is_not_given_others_values(make_carrier, desk):
    asked = iter(["echo", "other"])

    @collector("other")
    async def other(payload, ctx):  # noqa: ARG001
        return Ok("other")

    @collector("parent")
    async def parent(payload, ctx):  # noqa: ARG001
        await ctx.call(next(asked), {})
        return Error("once more")

    carrier = make_carrier(
        echo, other, parent, policy=RetryPolicy(ladder_seconds=(0.1, 60), jitter=0)
    )
    row = desk.attempted(desk.store(carrier, "parent"), 2)
    assert row.last_error.startswith("ReplayDiverged: call 1 is recorded as one of 'echo'")


def test_who_waits_for_long_is_not_due_and_is_given_back_at_the_end(make_carrier, desk):
    runs = []
    release = threading.Event()

    @collector("child")
    async def child(payload, ctx):  # noqa: ARG001
        await asyncio.to_thread(release.wait, 30)
        return Ok("at last")

    @collector("parent")
    async def parent(payload, ctx):
        runs.append(payload.attempt)
        return Ok(await ctx.call("child", {}))

    carrier = make_carrier(child, parent, lease_seconds=3.0)
    document = desk.store(carrier, "parent")

    def parked():
        row = desk.row(document)
        return row if row.attempts == 1 and row.attempted_at is None else None

    row = wait_until(parked)
    assert row.state == "pending"
    release.set()
    row = desk.ended(document)
    assert (row.value, row.attempts, runs) == ("at last", 1, [1])
    release.clear()
    document = desk.store(carrier, "parent")
    wait_until(parked)
    threading.Timer(0.5, release.set).start()
    carrier.stop()
    row = desk.row(document)
    assert (row.state, row.attempts) == ("pending", 0)
    second = make_carrier(child, parent)
    second.rung.set()
    assert desk.ended(document).value == "at last"
    assert runs == [1, 1, 1]


def test_a_retry_is_due_when_it_was_asked_for_though_its_run_was_being_parked(
    make_carrier, desk, monkeypatch
):
    parking, answer, recorded = threading.Event(), threading.Event(), threading.Event()
    park = steps.park

    def park_slowly(*args, **options):
        parking.set()
        recorded.wait(1.0)
        park(*args, **options)

    monkeypatch.setattr(steps, "park", park_slowly)

    @collector("child", documents=False)
    async def child(payload, ctx):  # noqa: ARG001
        await asyncio.to_thread(answer.wait, 60)
        return Ok()

    @collector("parent")
    async def parent(payload, ctx):  # noqa: ARG001
        await ctx.call("child", {})
        return Error("busy", retry_after=600)

    carrier = make_carrier(child, parent)
    document = desk.store(carrier, "parent")
    assert parking.wait(15)
    answer.set()
    desk.attempted(document)
    recorded.set()
    carrier.stop()
    row = desk.row(document)
    assert row.due_at - row.attempted_at >= timedelta(seconds=600)


def test_a_backlog_of_those_who_wait_stays_in_the_database(make_carrier, desk, monkeypatch):
    monkeypatch.setattr(suspended, "MOST", 3)
    monkeypatch.setattr(suspended, "MORE", 1)
    begun = []
    release = threading.Event()

    @collector("child")
    async def child(payload, ctx):  # noqa: ARG001
        await asyncio.to_thread(release.wait, 30)
        return Ok()

    @collector("parent")
    async def parent(payload, ctx):
        begun.append(payload.document.id)
        return Ok(await ctx.call("child", {}))

    carrier = make_carrier(child, parent, echo, concurrency=1)
    documents = [desk.store(carrier, "parent") for _ in range(12)]
    wait_until(lambda: len(begun) >= 3)
    steps = "SELECT count(*) FROM delivery_steps"
    wait_until(lambda: desk.rows.execute(steps)[0][0] == 3)
    for _ in range(3):  # and all the others have had their turn meanwhile
        desk.ended(desk.store(carrier, "echo"))
    assert len(begun) == 3
    release.set()
    for one in documents:
        desk.ended(one)


def test_those_who_wait_for_what_has_not_begun_let_it_begin(make_carrier, desk, monkeypatch):
    monkeypatch.setattr(suspended, "MOST", 2)
    monkeypatch.setattr(suspended, "MORE", 1)
    monkeypatch.setattr(suspended, "STUCK_SECONDS", 0.1)

    @collector("chain")
    async def chain(payload, ctx):
        length = payload.value["length"]
        return Ok(1 + await ctx.call("chain", {"length": length - 1}) if length else 0)

    carrier = make_carrier(chain, lease_seconds=0.5)
    assert desk.ended(desk.store(carrier, "chain", '{"length": 6}')).value == 6


def test_a_collector_that_blocks_costs_no_lease_and_ends_the_process_in_order(
    make_carrier, desk, ended
):
    release = threading.Event()

    @collector("block")
    async def block(payload, ctx):  # noqa: ARG001
        release.wait(30)
        return Ok()

    @collector("patient", timeout_seconds=0.5)
    async def patient(payload, ctx):  # noqa: ARG001
        await asyncio.sleep(0.3)
        return Ok("unharmed")

    carrier = make_carrier(block, patient, most_seconds=3.0, lease_seconds=1.0)
    other = desk.store(carrier, "patient")
    wait_until(lambda: desk.row(other).state == "delivered")
    document = desk.store(carrier, "block")
    innocent = desk.store(carrier, "patient")
    assert ended.wait(15)
    assert ended.how == "in order"
    release.set()
    row = desk.attempted(document)
    assert (row.state, row.attempts) == ("pending", 1)
    assert row.last_error == "it blocked the event loop of its process for 3 s"
    # Three lease lengths went by, and nobody had to take over.
    runtime = desk.rows.execute("SELECT lost_leases FROM destination_runtime")
    assert {one.lost_leases for one in runtime} == {0}
    assert desk.row(innocent).attempts in {0, 1}
    assert desk.row(innocent).last_error is None


def test_nobody_is_timed_out_for_another_that_blocks(make_carrier, desk):
    blocked, release = threading.Event(), threading.Event()

    @collector("block")
    async def block(payload, ctx):  # noqa: ARG001
        blocked.set()
        release.wait(30)
        return Ok()

    @collector("patient", timeout_seconds=1.0)
    async def patient(payload, ctx):  # noqa: ARG001
        for _ in range(10):  # what it needs are turns of the loop
            await asyncio.sleep(0.01)
        return Ok("unharmed")

    carrier = make_carrier(block, patient)
    desk.store(carrier, "block")
    assert blocked.wait(10)
    innocent = desk.store(carrier, "patient")
    threading.Timer(2.5, release.set).start()
    row = desk.ended(innocent)
    assert (row.value, row.attempts) == ("unharmed", 1)


def test_nobody_is_timed_out_for_another_that_blocks_a_little_again_and_again(make_carrier, desk):
    blocked, done = threading.Event(), threading.Event()

    @collector("block")
    async def block(payload, ctx):  # noqa: ARG001
        while not done.is_set():
            time.sleep(0.08)  # noqa: ASYNC251  (that is what it does)
            blocked.set()
            await asyncio.sleep(0)
        return Ok()

    @collector("patient", timeout_seconds=1.0)
    async def patient(payload, ctx):  # noqa: ARG001
        try:
            for _ in range(25):
                await asyncio.sleep(0)
            return Ok("unharmed")
        finally:
            done.set()

    carrier = make_carrier(block, patient)
    desk.store(carrier, "block")
    assert blocked.wait(10)
    row = desk.ended(desk.store(carrier, "patient"))
    assert (row.value, row.attempts) == ("unharmed", 1)


def test_what_another_takes_in_the_middle_of_a_run_is_not_counted(make_carrier, desk):
    @collector("patient", timeout_seconds=1.0)
    async def patient(payload, ctx):  # noqa: ARG001
        asyncio.get_running_loop().call_later(0.05, time.sleep, 1.5)
        for _ in range(5):
            await asyncio.sleep(0.1)
        return Ok("unharmed")

    row = desk.ended(desk.store(make_carrier(patient), "patient"))
    assert (row.value, row.attempts) == ("unharmed", 1)


def test_a_task_of_a_collector_cannot_end_the_loop_of_all(make_carrier, desk):
    @collector("quit")
    async def leave(payload, ctx):  # noqa: ARG001
        async def out():
            raise SystemExit(1)

        await asyncio.gather(out())
        return Ok()

    carrier = make_carrier(leave, echo)
    assert desk.attempted(desk.store(carrier, "quit")).last_error == "SystemExit: 1"
    assert desk.ended(desk.store(carrier, "echo", "still here")).value == "still here"


def test_where_nobody_knows_who_blocks_the_process_ends_at_once(make_carrier, desk, ended):
    release = threading.Event()

    @collector("block")
    async def block(payload, ctx):  # noqa: ARG001
        async def part():
            release.wait(30)

        await asyncio.gather(part())
        return Ok()

    carrier = make_carrier(block, most_seconds=1.0)
    document = desk.store(carrier, "block")
    assert ended.wait(15)
    release.set()
    assert ended.how == "at once"
    assert desk.row(document).attempts == 0


def test_who_blocks_beside_a_call_that_it_made_is_found_as_well(make_carrier, desk, ended):
    go, release = threading.Event(), threading.Event()

    @collector("child", documents=False)
    async def child(payload, ctx):  # noqa: ARG001
        return Ok()

    @collector("block")
    async def block(payload, ctx):  # noqa: ARG001
        asked = asyncio.ensure_future(ctx.call("child", {}))
        await asyncio.to_thread(go.wait, 60)
        release.wait(60)
        return Ok(await asked)

    register_collectors(desk.rows.engine, DEFAULT_TENANT, [child])  # which nobody carries
    carrier = make_carrier(block, most_seconds=1.0)
    document = desk.store(carrier, "block")
    wait_until(lambda: desk.row(document).attempts == 1)  # parked, so it has no turn
    go.set()
    try:
        assert ended.wait(30)
        assert ended.how == "in order"
        row = desk.attempted(document)
        assert row.last_error == "it blocked the event loop of its process for 1 s"
    finally:
        release.set()


def test_who_is_interrupted_after_he_waited_is_given_back_as_not_attempted(
    make_carrier, desk, ended
):
    answer, going, release = threading.Event(), threading.Event(), threading.Event()

    @collector("child", documents=False)
    async def child(payload, ctx):  # noqa: ARG001
        await asyncio.to_thread(answer.wait, 60)
        return Ok()

    @collector("innocent")
    async def innocent(payload, ctx):  # noqa: ARG001
        await ctx.call("child", {})
        going.set()
        await asyncio.sleep(60)

    @collector("block")
    async def block(payload, ctx):  # noqa: ARG001
        release.wait(60)
        return Ok()

    carrier = make_carrier(child, innocent, block, most_seconds=1.0)
    document = desk.store(carrier, "innocent")
    wait_until(lambda: desk.row(document).attempts == 1)  # parked
    answer.set()
    assert going.wait(30)
    desk.store(carrier, "block")
    assert ended.wait(30)
    release.set()
    carrier.stop()
    row = desk.row(document)
    assert (row.state, row.attempts, row.attempted_at) == ("pending", 0, None)


def test_a_lifecycle_fills_the_context_and_one_that_fails_holds_up_no_other(make_carrier, desk):
    events = []
    broken = threading.Event()
    broken.set()

    class Counting(Context):
        calls: int

    async def opened(ctx):  # without its decorator
        ctx.calls = 0
        events.append("open")
        yield
        events.append(f"close after {ctx.calls}")

    @asynccontextmanager
    async def failing(ctx):  # noqa: ARG001
        if broken.is_set():
            raise ConnectionError("no database")
        yield

    @collector("counting", lifecycle=opened, ctx=Counting)
    async def counting(payload, ctx):  # noqa: ARG001
        ctx.calls += 1
        return Ok(ctx.calls)

    @collector("waiting", lifecycle=failing)
    async def waiting(payload, ctx):  # noqa: ARG001
        return Ok("now")

    carrier = make_carrier(counting, waiting)
    held_up = desk.store(carrier, "waiting")
    assert [desk.ended(desk.store(carrier, "counting")).value for _ in range(2)] == [1, 2]
    found = [get_destination(carrier.engine, 1, one) for one in carrier.destinations.values()]
    away = unavailable_collectors(carrier.engine, DEFAULT_TENANT, found)
    assert away == {carrier.destinations["waiting"]}
    assert desk.row(held_up).state == "pending"
    broken.clear()
    assert desk.ended(held_up).value == "now"
    carrier.stop()
    assert events == ["open", "close after 2"]


@pytest.mark.parametrize("way_out", [SystemExit, asyncio.CancelledError, Unheard])
def test_a_lifecycle_that_ends_as_if_it_were_the_process_is_begun_again(
    make_carrier, desk, way_out
):
    begun = []

    @asynccontextmanager
    async def leaving(ctx):  # noqa: ARG001
        begun.append(way_out)
        if len(begun) == 1:
            raise way_out
        yield

    @collector("leaving", lifecycle=leaving)
    async def left(payload, ctx):  # noqa: ARG001
        return Ok("here")

    carrier = make_carrier(left)
    assert desk.ended(desk.store(carrier, "leaving")).value == "here"


def test_a_function_that_is_given_back_cleans_up_before_its_lifecycle_ends(make_carrier, desk):
    events = []

    async def opened(ctx):  # noqa: ARG001
        yield
        events.append("closed")

    @collector("waiting", lifecycle=opened)
    async def waiting(payload, ctx):  # noqa: ARG001
        try:
            await ctx.call("away", {})
        finally:
            await asyncio.sleep(0.1)
            events.append("cleaned up")

    @collector("away", documents=False)
    async def away(payload, ctx):  # noqa: ARG001
        return Ok()

    register_collectors(desk.rows.engine, DEFAULT_TENANT, [away])
    carrier = make_carrier(waiting)
    desk.store(carrier, "waiting")
    wait_until(lambda: desk.rows.execute("SELECT 1 FROM delivery_steps"))
    carrier.stop()
    assert events == ["cleaned up", "closed"]


def test_deliveries_wait_for_a_collector_that_no_process_carries(make_carrier, desk, engine):
    carrier = make_carrier(echo)
    assert desk.ended(desk.store(carrier, "echo", "first")).value == "first"
    found = [get_destination(engine, DEFAULT_TENANT, carrier.destinations["echo"])]
    assert unavailable_collectors(engine, DEFAULT_TENANT, found) == set()
    carrier.stop()
    assert unavailable_collectors(engine, DEFAULT_TENANT, found) == {found[0].id}
    waiting = desk.store(carrier, "echo", "second")

    @collector("other")
    async def other(payload, ctx):  # noqa: ARG001
        return Ok("not echo")

    # A process that carries another one leaves it alone.
    strange = make_carrier(other)
    assert desk.ended(desk.store(strange, "other")).value == "not echo"
    assert (desk.row(waiting).state, desk.row(waiting).attempts) == ("pending", 0)
    make_carrier(echo)
    assert desk.ended(waiting).value == "second"


def test_the_code_says_what_a_collector_takes(engine, yard):
    yard.destination("http://hook.example/", key="hook")
    spec = answering(Ok(), topics=["a.*"], categories=["sci.space"], timeout_seconds=600)
    ids = register_collectors(engine, DEFAULT_TENANT, [spec])
    assert register_collectors(engine, DEFAULT_TENANT, [spec]) == ids
    first = get_destination(engine, DEFAULT_TENANT, ids["answer"])
    assert (first.topics, first.categories, first.timeout_seconds) == (["a.*"], ["sci.space"], 600)
    assert first.documents
    hidden = register_collectors(engine, DEFAULT_TENANT, [echo])["echo"]
    assert not get_destination(engine, DEFAULT_TENANT, hidden).documents
    with pytest.raises(InvalidInput, match="its code decides"):
        change_destination(
            engine, DEFAULT_TENANT, first.id, DestinationChanges(url="http://a.example/")
        )
    change_destination(engine, DEFAULT_TENANT, first.id, DestinationChanges(min_confidence=0.5))
    register_collectors(engine, DEFAULT_TENANT, [answering(Ok(), topics=["b"])])
    second = get_destination(engine, DEFAULT_TENANT, first.id)
    assert (second.topics, second.categories, second.min_confidence) == (["b"], [], 0.5)

    @collector("hook")
    async def hook(payload, ctx):  # noqa: ARG001
        return Ok()

    with pytest.raises(SettingsInvalid, match="a webhook destination has this key"):
        register_collectors(engine, DEFAULT_TENANT, [hook])


def test_an_attempt_that_may_kill_is_counted_first_and_comes_back_by_the_ladder(make_carrier, desk):
    release = threading.Event()

    @collector("fragile")
    async def fragile(payload, ctx):  # noqa: ARG001
        await asyncio.to_thread(release.wait, 30)
        return Ok("survived")

    (fragile_id,) = register_collectors(desk.rows.engine, DEFAULT_TENANT, [fragile]).values()
    # Two processes have died of it.
    desk.rows.execute(
        "INSERT INTO destination_runtime (tenant_id, destination_id, epoch, holder,"
        " lease_expires_at, lost_leases) VALUES (1, :id, 7, 'dead', now() - interval '1 s', 1)",
        id=fragile_id,
    )
    carrier = make_carrier(fragile)
    document = desk.store(carrier, "fragile")
    row = wait_until(lambda: (found := desk.row(document)).attempts and found)
    assert (row.state, row.attempted_at) == ("pending", None)
    assert row.due_at - row.created_at >= timedelta(seconds=5)
    release.set()
    assert (desk.ended(document).value, desk.row(document).attempts) == ("survived", 1)
    carrier.stop()
    document = desk.store(carrier, "fragile")
    # Marked for the last time, and nobody came back from that.
    desk.rows.execute("UPDATE deliveries SET attempts = 10 WHERE state = 'pending'")
    make_carrier(fragile)
    row = desk.ended(document)
    assert (row.state, row.last_error) == ("failed", "10 attempts began and none came back")
