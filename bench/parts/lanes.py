"""Single documents beside a bulk load: POST → stored, idle and while 200,000 wait in a lower lane.

An open loop: documents leave on their schedule whether or not earlier ones have come through.
"Stored" is when another connection to Postgres sees the row.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psycopg
import uvloop

from bench import texts
from bench.commits import percentiles
from bench.results import Finding, Line, PartResult, Plot, Void
from bench.run import Run, say
from bench.sides import Side
from bench.upload import Uploaded, upload

WORDS = 250
PER_SECOND = 20
LOOK_SECONDS = 0.002
LOST_SECONDS = 30.0
SETTLE_SECONDS = 0.5
STEP_SECONDS = 0.5


@dataclass(slots=True)
class Singles:
    """Documents sent one by one: when, and how long until each was stored.

    Attributes:
        sent: id → when its POST began, of those not yet seen.
        took: (when its POST began, milliseconds until it was stored).
    """

    sent: dict[uuid.UUID, float] = field(default_factory=dict)
    took: list[tuple[float, float]] = field(default_factory=list)


def measure(run: Run) -> PartResult:
    """Measure each round idle first, then during an upload."""
    idle: list[float] = []
    loaded: list[float] = []
    over_time: list[Line] = []
    side = run.docyard()
    count = run.scale.lanes
    with run.ndjson(count, WORDS) as file:
        for number in range(1, run.scale.rounds + 1):
            with side.running(workers=True):
                idle += uvloop.run(_while(side, lambda: asyncio.sleep(run.scale.idle_seconds)))
                uploaded, during = _during_upload(side, file, count)
                side.drain()
                stored = side.commits(uploaded.began_at)
                if stored.rows < count:
                    message = f"stored {stored.rows} of {count}"
                    raise Void(message)
                loaded += during
                points = stored.over_time(uploaded.began_at, STEP_SECONDS)
                over_time = [Line(name="stored, both lanes", points=points)]
            say(f"  round {number}: {len(during)} single documents during the bulk load")
    return _result(idle, loaded, over_time, count)


def _during_upload(side: Side, file: Path, count: int) -> tuple[Uploaded, list[float]]:
    """Time single documents from the first byte of the upload until its last row is stored."""
    uploaded: list[Uploaded] = []

    async def load() -> None:
        uploaded.append(await asyncio.to_thread(upload, side.url, file, count))
        await asyncio.to_thread(side.drain)

    took = uvloop.run(_while(side, load))
    return uploaded[0], took


async def _while(side: Side, work: Callable[[], Awaitable[object]]) -> list[float]:
    """Send single documents until some work is done; return the milliseconds of each."""
    singles = Singles()
    looking = asyncio.create_task(_look(side, singles))
    sending = asyncio.create_task(_send(side, singles))
    began_at = time.perf_counter()
    try:
        await work()
        ended_at = time.perf_counter()
    finally:
        sending.cancel()
    while singles.sent and time.perf_counter() < ended_at + LOST_SECONDS:  # noqa: ASYNC110  (as _look)
        await asyncio.sleep(LOOK_SECONDS)
    looking.cancel()
    if singles.sent:
        message = f"{len(singles.sent)} single documents were not stored"
        raise Void(message)
    return [ms for at, ms in singles.took if began_at + SETTLE_SECONDS <= at <= ended_at]


async def _send(side: Side, singles: Singles) -> None:
    body = texts.take(1, WORDS)[0]
    start, number = time.perf_counter(), 0
    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:

        async def post() -> None:
            document_id = uuid.uuid4()
            singles.sent[document_id] = time.perf_counter()
            document = {"id": str(document_id), "content": f"{number} {body}"}
            async with session.post(f"{side.url}/documents", json=document) as answer:
                if not answer.ok:
                    message = f"a single document was answered {answer.status}"
                    raise Void(message)

        while True:
            number += 1
            group.create_task(post())
            await asyncio.sleep(max(0.0, start + number / PER_SECOND - time.perf_counter()))


async def _look(side: Side, singles: Singles) -> None:
    """Look for what was sent, by primary key, over one connection."""
    connection = await psycopg.AsyncConnection.connect(side.database_url, autocommit=True)
    async with connection:
        while True:
            if waiting := list(singles.sent):
                rows = await connection.execute(
                    "SELECT id FROM documents WHERE tenant_id = 1 AND id = ANY(%s)", (waiting,)
                )
                found = await rows.fetchall()
                seen_at = time.perf_counter()
                for (document_id,) in found:
                    sent_at = singles.sent.pop(document_id)
                    singles.took.append((sent_at, (seen_at - sent_at) * 1000))
            await asyncio.sleep(LOOK_SECONDS)


def _result(
    idle: list[float], loaded: list[float], over_time: list[Line], count: int
) -> PartResult:
    if not loaded:
        message = "the bulk load was over before a single document was timed"
        raise Void(message)
    at_idle, at_load = dict(percentiles(idle)), dict(percentiles(loaded))
    detail = f"{len(loaded)} documents; idle p50 {at_idle[50]:.1f}, p99 {at_idle[99]:.1f} ms"
    during = f"POST → stored while {count:,} are loaded in bulk"
    return PartResult(
        findings=[
            Finding(
                what=f"{during}: p50 ÷ idle p50",
                found=at_load[50] / at_idle[50],
                asked=3,
                sense="at most",
                detail=f"p50 {at_load[50]:.1f} ms; {detail}",
            ),
            Finding(
                what=f"{during}: p99",
                found=at_load[99],
                unit="ms",
                asked=250,
                sense="at most",
                detail=detail,
            ),
        ],
        plots=[
            Plot(
                name="lanes-latency",
                title=f"Single documents at {PER_SECOND}/s: POST → stored, by percentile",
                kind="latency",
                lines=[
                    Line(name="idle", points=percentiles(idle)),
                    Line(name="during a bulk load", points=percentiles(loaded)),
                ],
            ),
            Plot(
                name="lanes-rate",
                title=f"{count:,} documents in bulk and {PER_SECOND} single ones a second",
                kind="rate",
                lines=over_time,
            ),
        ],
    )
