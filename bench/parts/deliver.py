"""Deliveries a second to one receiver ÷ a bare loop (``python -m bench.deliver`` says how)."""

from __future__ import annotations

from bench import deliver
from bench.results import Finding, PartResult, ratio
from bench.run import Run

ASKED = 0.5
PUMP, BARE = "pump", "bare aiohttp loop"


def measure(run: Run) -> PartResult:
    """Measure on servers of its own: each round puts its rows back by hand."""
    bare, pumped = deliver.measure(max(run.scale.rounds, 3), run.scale.deliveries)
    rounds = {PUMP: pumped, BARE: bare}
    found, detail = ratio(rounds, PUMP, BARE)
    what = "deliveries/s to one fast receiver, signed and recorded"
    return PartResult(
        findings=[
            Finding(what=f"{what} ÷ bare aiohttp loop", found=found, asked=ASKED, detail=detail)
        ],
        rounds={what: rounds},
    )
