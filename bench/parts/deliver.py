"""Deliveries a second to 1, 10 and 100 receivers ÷ a bare loop (``bench.deliver`` says how)."""

from __future__ import annotations

from bench import deliver
from bench.results import Finding, PartResult, Rounds, ratio
from bench.run import Run, say

ASKED = {1: 0.6, 10: 0.6, 100: 0.5}
PUMP, BARE = "pump", "bare aiohttp loop"


def measure(run: Run) -> PartResult:
    """Measure on servers of its own: each round puts its rows back by hand."""
    findings: list[Finding] = []
    every: dict[str, Rounds] = {}
    for receivers, asked in ASKED.items():
        say(f"  {receivers} receivers")
        many = f"{receivers} fast receivers" if receivers > 1 else "one fast receiver"
        what = f"deliveries/s to {many}, signed, with results and attempts recorded"
        bare, pumped = deliver.measure(max(run.scale.rounds, 3), run.scale.deliveries, receivers)
        rounds = {PUMP: pumped, BARE: bare}
        found, detail = ratio(rounds, PUMP, BARE)
        findings.append(
            Finding(what=f"{what} ÷ bare aiohttp loop", found=found, asked=asked, detail=detail)
        )
        every[what] = rounds
    return PartResult(findings=findings, rounds=every)
