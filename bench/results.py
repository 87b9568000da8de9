"""What was measured, as values that are kept as JSON; tables and plots are rendered from it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

KEPT = Path(__file__).parent / "results.json"
"""The last full measurement; docs/performance.md is rendered from it."""

Sense = Literal["at least", "at most"]
Rounds = dict[str, list[float]]
"""What each contestant reached in each round."""


class Void(Exception):
    """A document was lost, refused or rejected: the measurement says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the table.

    Attributes:
        what: the load.
        found: the number that is asked about.
        unit: of it; empty for a ratio.
        asked: None where nothing was asked.
        sense: which side of ``asked`` is good.
        detail: what it was computed from, for people.
        section: of which table it is a line; empty for the main one.
    """

    what: str
    found: float
    unit: str = ""
    asked: float | None = None
    sense: Sense = "at least"
    detail: str = ""
    section: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether what was asked was reached; None where nothing was asked."""
        if self.asked is None:
            return None
        return self.found >= self.asked if self.sense == "at least" else self.found <= self.asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a plot."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A plot: throughput over seconds, or latency over percentiles.

    Attributes:
        name: of the file, without its ending.
        kind: "rate": x in seconds, y per second. "latency": x in percent, y in milliseconds.
            "limit": x in seconds, y in requests and in milliseconds.
    """

    name: str
    title: str
    kind: Literal["rate", "latency", "limit"]
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """What one part of the benchmark found."""

    findings: Sequence[Finding] = ()
    rounds: Mapping[str, Rounds] = field(default_factory=dict)
    plots: Sequence[Plot] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A part's result and how it came about.

    Attributes:
        measured_on: the day.
        command: that was run.
        machine: what the numbers depend on.
        void: why the measurement says nothing, None when it counts.
    """

    part: str
    measured_on: str
    command: str
    machine: Mapping[str, Any]
    result: PartResult
    void: str | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the record that was kept."""
        result = values["result"]
        plots = [
            Plot(**{**plot, "lines": [Line(**line) for line in plot["lines"]]})
            for plot in result["plots"]
        ]
        found = PartResult(
            findings=[Finding(**one) for one in result["findings"]],
            rounds=result["rounds"],
            plots=plots,
        )
        return cls(**{**values, "result": found})


def read(file: Path) -> dict[str, Record]:
    """Return the kept records by part; none when there is no file."""
    if not file.exists():
        return {}
    kept = json.loads(file.read_text(encoding="utf-8"))
    return {name: Record.from_json(values) for name, values in kept.items()}


def write(file: Path, records: Mapping[str, Record]) -> None:
    """Keep the records."""
    values = {name: _rounded(asdict(record)) for name, record in records.items()}
    file.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def ratio(rounds: Rounds, ours: str, *theirs: str) -> tuple[float, str]:
    """Return our median ÷ the best of theirs, and a sentence with both rates.

    Args:
        rounds: rates per second.
        ours: name of the one above the line.
        theirs: names below it; of several forms of a baseline the best counts.
    """
    medians = {name: statistics.median(rates) for name, rates in rounds.items()}
    best = max(theirs, key=medians.__getitem__)
    detail = f"{ours} {medians[ours]:,.0f}/s, {best} {medians[best]:,.0f}/s"
    return medians[ours] / medians[best], detail


def _rounded(value: Any) -> Any:
    """Round what was measured to what it is worth."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < 1000 else round(value)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
