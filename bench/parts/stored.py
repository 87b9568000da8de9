"""Stored and classified documents a second under single POSTs, workers on."""

from __future__ import annotations

from bench.commits import queue_latency
from bench.load import run_load
from bench.results import Finding, Line, PartResult, Plot, Void, ratio
from bench.run import Run
from bench.sides import Side

WORDS = 250
STEP_SECONDS = 0.5
OURS = "Docyard"


def measure(run: Run) -> PartResult:
    """Measure from the first byte to the last commit, over 64 connections."""
    tutorials = run.tutorials()
    over_time: dict[str, Line] = {}
    latency: dict[str, Line] = {}

    def rate(side: Side) -> float:
        with side.running(workers=True):
            load = run_load(side.url, run.scale.seconds, WORDS)
            side.drain()
            stored = side.commits(load.began_at)
            # More is possible: what was under way when the load ended.
            if stored.rows < load.accepted:
                message = f"{side.name} stored {stored.rows} of {load.accepted}"
                raise Void(message)
            points = stored.over_time(load.began_at, STEP_SECONDS)
            over_time[side.name] = Line(name=side.name, points=points)
            name = f"{side.name}: POST answered"
            latency[name] = Line(name=name, points=load.latency)
            if side.name == OURS:
                name = f"{side.name}: appended → stored"
                points = queue_latency(side.database_url, load.began_at)
                latency[name] = Line(name=name, points=points)
            return stored.rate(load.began_at)

    names = [side.name for side in tutorials]
    rounds = run.take_turns(
        {
            OURS: lambda: rate(run.docyard(OURS)),
            **{side.name: lambda side=side: rate(side) for side in tutorials},  # type: ignore[misc]  # bound now
        }
    )
    found, detail = ratio(rounds, OURS, *names)
    load = f"stored and classified/s, single POSTs, 64 connections, {WORDS} words"
    return PartResult(
        findings=[Finding(what=f"{load} ÷ tutorial's", found=found, asked=12, detail=detail)],
        rounds={load: rounds},
        plots=[
            Plot(
                name="stored-rate",
                title="Single POSTs over 64 connections: stored and classified",
                kind="rate",
                lines=[over_time[OURS], *(over_time[name] for name in names)],
            ),
            Plot(
                name="stored-latency",
                title="Single POSTs over 64 connections: latency by percentile",
                kind="latency",
                lines=list(latency.values())[:4],
            ),
        ],
    )
