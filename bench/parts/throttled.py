"""The controller against a real receiver that takes ten requests at a time: limit and latency."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from bench.commits import percentiles
from bench.moody_receiver import moody_receiver
from bench.parts.fairness import make_destinations
from bench.results import Finding, Line, PartResult, Plot
from bench.run import Run
from bench.sides import Side
from bench.upload import upload

AT_A_TIME, MILLISECONDS = 10, 50
SECONDS = 45
BEST_PER_SECOND = AT_A_TIME * 1000 / MILLISECONDS
SETTLED_SECONDS = 20
OK, REFUSED = 200, 429


class Attempt(NamedTuple):
    """One request: when it began, behind the first one, what it came to, and how long it took."""

    second: float
    status: int
    milliseconds: float


def measure(run: Run) -> PartResult:
    """Deliver more than it can take for 45 s, and watch the limit."""
    side = run.docyard()
    backlog = int(BEST_PER_SECOND * SECONDS * 1.5)
    limits: list[tuple[float, float]] = []
    with moody_receiver() as url, side.running(workers=True):
        make_destinations(side, url, [f"throttle/{AT_A_TIME}/{MILLISECONDS}"])
        with run.ndjson(backlog, 30) as file:
            upload(side.url, file, backlog)
        began_at = time.monotonic()
        with psycopg.connect(side.database_url, autocommit=True) as connection:
            while (passed := time.monotonic() - began_at) < SECONDS:
                row = connection.execute(
                    "SELECT concurrency_limit FROM destination_runtime"
                    " WHERE concurrency_limit IS NOT NULL"
                ).fetchone()
                limits.append((passed, float(row[0]) if row else 0.0))
                time.sleep(0.5)
        time.sleep(1)  # Attempts are written a moment behind their end.
        attempts = _attempts(side)
    settled = [one for one in attempts if SETTLED_SECONDS < one.second < SECONDS]
    accepted = sum(one.status == OK for one in settled) / (SECONDS - SETTLED_SECONDS)
    refused = sum(one.status == REFUSED for one in settled) / max(1, len(settled))
    return PartResult(
        findings=[
            Finding(
                what=f"deliveries/s to a receiver that takes {AT_A_TIME} at a time, from 20 s on ÷"
                " what it can take",
                found=accepted / BEST_PER_SECOND,
                asked=0.8,
                detail=f"{accepted:.0f}/s of {BEST_PER_SECOND:.0f}/s",
            ),
            Finding(
                what="share of its answers that were 429, from 20 s on",
                found=refused,
                asked=0.05,
                sense="at most",
            ),
        ],
        plots=[
            Plot(
                name="controller",
                title=f"A receiver that takes {AT_A_TIME} at a time, {MILLISECONDS} ms each",
                kind="limit",
                lines=[
                    Line(name="limit (requests in flight)", points=limits),
                    Line(name="latency, p95 of each second (ms)", points=_latency(attempts)),
                ],
            )
        ],
    )


def _attempts(side: Side) -> list[Attempt]:
    with psycopg.connect(side.database_url) as connection:
        rows = connection.execute(
            "SELECT EXTRACT(EPOCH FROM started_at - min(started_at) OVER ())::float8, status,"
            " total_ms::float8 FROM attempts WHERE status IS NOT NULL ORDER BY started_at"
        ).fetchall()
    return [Attempt(*row) for row in rows]


def _latency(attempts: Sequence[Attempt]) -> list[tuple[float, float]]:
    """Return the p95 of the answers that were no refusals, second by second."""
    seconds: dict[int, list[float]] = {}
    for one in attempts:
        if one.status == OK and one.second < SECONDS:
            seconds.setdefault(int(one.second), []).append(one.milliseconds)
    return [(float(at), dict(percentiles(taken))[95]) for at, taken in sorted(seconds.items())]
