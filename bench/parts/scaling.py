"""One and two ingest processes on a queue that was filled before, without web or generator."""

from __future__ import annotations

import time

from bench import texts
from bench.filling import fill_docyard
from bench.processes import paused
from bench.results import Finding, PartResult, Void, ratio
from bench.run import Run

WORDS = 250
ASKED = 1.6
ONE, TWO = "1 process", "2 processes"


def measure(run: Run) -> PartResult:
    """Measure from the moment that the workers may run until the last commit."""
    documents = texts.take(run.scale.scaling, WORDS)

    def rate(processes: int) -> float:
        side = run.docyard("Docyard", "--only", "ingest", "--ingest-processes", str(processes))
        side.clear()
        side.start_worker()
        assert side.worker_process is not None  # noqa: S101  (started above)
        try:
            side.warm(lambda body: fill_docyard(side.redis_url, [body]))
            with paused(side.worker_process.pid):
                fill_docyard(side.redis_url, documents)
                began_at = time.time()
            side.drain()
            stored = side.commits(began_at)
        finally:
            side.stop()
        if stored.rows != len(documents):
            message = f"stored {stored.rows} of {len(documents)}"
            raise Void(message)
        return stored.rate(began_at)

    rounds = run.take_turns({ONE: lambda: rate(1), TWO: lambda: rate(2)})
    found, detail = ratio(rounds, TWO, ONE)
    what = f"stored and classified/s from a full queue, {WORDS} words"
    return PartResult(
        findings=[
            Finding(what=f"{what}: 2 ingest processes ÷ 1", found=found, asked=ASKED, detail=detail)
        ],
        rounds={what: rounds},
    )
