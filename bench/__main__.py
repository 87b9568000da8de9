"""``make bench``: Docyard against the baselines, as ratios from one run.

Rounds are interleaved and medians taken: machines are shared and noisy. Both sides get the same
bytes, every document differs, Valkey runs with ``appendfsync always`` and Postgres with fsync. A
side that loses or refuses a document makes the measurement void.

A full run keeps its results (``bench/results.json``) and renders docs/performance.md and its plots
from them; a short one only prints.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import statistics
import sys
import tempfile
import timeit
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from bench import report, results
from bench.parts import (
    accepted,
    bulk,
    classify,
    deliver,
    destinations,
    fairness,
    growth,
    lanes,
    latency,
    memory,
    retention,
    scaling,
    stored,
    throttled,
)
from bench.results import PartResult, Record, Void
from bench.run import FULL, SHORT, Run, Scale, say
from bench.servers import Servers, servers

PARTS: Mapping[str, Callable[[Run], PartResult]] = {
    "accepted": accepted.measure,
    "stored": stored.measure,
    "bulk": bulk.measure,
    "lanes": lanes.measure,
    "classify": classify.measure,
    "scaling": scaling.measure,
    "destinations": destinations.measure,
    "memory": memory.measure,
    "latency": latency.measure,
    "deliver": deliver.measure,
    "fairness": fairness.measure,
    "throttled": throttled.measure,
    "growth": growth.measure,
    "retention": retention.measure,
}
"""In the order in which they run and stand in the table."""


def main() -> int:
    """Run the parts that were named, or all; return 1 when one is void."""
    asked = _arguments()
    if asked.render:
        report.write_docs(results.read(asked.results or results.KEPT))
        return 0
    scale = _scale(asked)
    kept = asked.results or (None if asked.short else results.KEPT)
    # As Ctrl-C does: what was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with servers() as running:
        facts = machine(running)
        say(", ".join(f"{name} {value}" for name, value in facts.items()))
        records: dict[str, Record] = {}
        for name in asked.parts or PARTS:
            records[name] = _record(name, running, scale, facts)
            if kept is not None:
                _keep(records, kept)
    for section in ("", "statements"):
        print(report.table(records.values(), section))
    return int(any(record.void is not None for record in records.values()))


def machine(running: Servers) -> dict[str, Any]:
    """Return what the numbers depend on."""
    with tempfile.TemporaryFile(dir=running.folder) as file:
        times = [_sync_seconds(file) for _ in range(200)]
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "servers": running.versions,
        "fsync of 2 KB": f"{statistics.median(times) * 1000:.2f} ms",
        # Others' work on a shared machine is in every number.
        "load average before": round(os.getloadavg()[0], 1),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"all, or some of {', '.join(PARTS)}"
    )
    parser.add_argument("--short", action="store_true", help="a few minutes, for a first look")
    parser.add_argument("--rounds", type=int, help="of each comparison")
    parser.add_argument("--seconds", type=int, help="of load in each round of single POSTs")
    parser.add_argument("--rows", type=int, help="in the large table of growth")
    parser.add_argument("--results", type=Path, help="keep the results here instead")
    parser.add_argument(
        "--render", action="store_true", help="only write the page from kept results"
    )
    asked = parser.parse_args()
    if unknown := [name for name in asked.parts if name not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)} (there are {', '.join(PARTS)})")
    return asked


def _scale(asked: argparse.Namespace) -> Scale:
    given = {name: getattr(asked, name) for name in ("rounds", "seconds", "rows")}
    sizes = {name: value for name, value in given.items() if value is not None}
    return replace(SHORT if asked.short else FULL, **sizes)


def _record(name: str, running: Servers, scale: Scale, facts: Mapping[str, Any]) -> Record:
    say(f"{name}: {(sys.modules[PARTS[name].__module__].__doc__ or '').splitlines()[0]}")
    result, void = PartResult(), None
    try:
        result = PARTS[name](Run(running, scale))
    except Void as error:
        void = str(error)
    except Exception as error:  # noqa: BLE001  (what other parts take half an hour for still counts)
        traceback.print_exc()
        void = f"{type(error).__name__}: {error}"
    if void is not None:
        say(f"  void: {void}")
    return Record(
        part=name,
        measured_on=datetime.now(UTC).date().isoformat(),
        command=_command(sys.argv[1:]),
        machine=facts,
        result=result,
        void=void,
    )


def _keep(records: Mapping[str, Record], file: Path) -> None:
    """Keep records beside those of parts that were not measured now, and render them."""
    every = {**results.read(file), **records}
    results.write(file, {name: every[name] for name in PARTS if name in every})
    if file == results.KEPT:
        report.write_docs(results.read(file))


def _command(arguments: Sequence[str]) -> str:
    return f"make bench ARGS='{' '.join(arguments)}'" if arguments else "make bench"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _sync_seconds(file: IO[bytes]) -> float:
    file.write(b"x" * 2048)
    file.flush()
    return timeit.timeit(lambda: os.fsync(file.fileno()), number=1)


if __name__ == "__main__":
    sys.exit(main())
