"""Accepted documents a second, worker off: against the floor, the tutorial, and a laxer fsync."""

from __future__ import annotations

from bench.load import WARM_SECONDS, run_load
from bench.results import Finding, PartResult, ratio
from bench.run import Run
from bench.sides import Side

WORDS = 250
OURS, LAX = "Docyard", "Docyard, everysec"


def measure(run: Run) -> PartResult:
    """Measure single POSTs over 64 connections."""
    tutorial = run.tutorials()[0]
    tutorial.name = "tutorial"
    floor = run.floor()

    def rate(side: Side, fsync: str = "always") -> float:
        run.servers.set_fsync(fsync)
        try:
            with side.running():
                run_load(side.url, WARM_SECONDS, WORDS)
                return run_load(side.url, run.scale.seconds, WORDS).rate
        finally:
            run.servers.set_fsync("always")

    rounds = run.take_turns(
        {
            OURS: lambda: rate(run.docyard()),
            LAX: lambda: rate(run.docyard(), "everysec"),
            floor.name: lambda: rate(floor),
            tutorial.name: lambda: rate(tutorial),
        }
    )
    load = f"accepted/s, 64 connections, {WORDS} words, worker off"
    wanted = (
        (f"{load} ÷ FastAPI route that does nothing", floor.name, 1.2),
        (f"{load} ÷ tutorial's", tutorial.name, 4.0),
        ("accepted/s with `appendfsync always` ÷ `everysec`", LAX, 0.85),
    )
    findings = []
    for what, theirs, asked in wanted:
        found, detail = ratio(rounds, OURS, theirs)
        findings.append(Finding(what=what, found=found, asked=asked, detail=detail))
    return PartResult(findings=findings, rounds={load: rounds})
