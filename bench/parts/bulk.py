"""NDJSON bulk: from the first byte uploaded to the last row committed, against the tutorial.

The tutorial has no such route; its side drains the same documents from a full queue, its workers
warm and its web process idle.
"""

from __future__ import annotations

import time
from functools import partial

from bench import texts
from bench.commits import Commits, queue_latency
from bench.filling import fill_tutorial
from bench.processes import paused
from bench.receiving import counting_receiver, one_destination, require_delivered
from bench.results import Finding, Line, PartResult, Plot, Rounds, Void, ratio
from bench.run import Run
from bench.sides import Side
from bench.upload import upload

ASKED = {250: 30.0, 30: 60.0}
STEP_SECONDS = 0.5
OURS, WITH_DESTINATION = "Docyard", "Docyard, one destination"


class Bulk:
    """Uploads of documents of one size, and what they looked like over time."""

    def __init__(self, run: Run, words: int) -> None:
        self._run = run
        self._words = words
        self._count = run.scale.bulk[words]
        self.over_time: dict[str, Line] = {}
        self.latency: dict[str, Line] = {}

    def measure(self) -> Rounds:
        """Let both sides take turns."""
        run, tutorials = self._run, self._run.tutorials()
        with run.ndjson(self._count, self._words) as file:
            docyard = run.docyard(OURS)

            def alone() -> float:
                with docyard.running(workers=True):
                    sent = upload(docyard.url, file, self._count)
                    return self._rate(docyard, OURS, sent.began_at, self._count)

            def delivered() -> float:
                with (
                    docyard.running(workers=True),
                    counting_receiver() as receiver,
                    one_destination(docyard, receiver),
                ):
                    sent = upload(docyard.url, file, self._count)
                    rate = self._rate(docyard, WITH_DESTINATION, sent.began_at, self._count)
                    require_delivered(docyard, receiver, self._count)
                    return rate

            return run.take_turns(
                {
                    OURS: alone,
                    WITH_DESTINATION: delivered,
                    **{side.name: partial(self._drain, side) for side in tutorials},
                }
            )

    def _drain(self, side: Side) -> float:
        """Let the tutorial's workers empty a queue that was filled while they were held still."""
        count = self._run.scale.tutorial
        with side.running(workers=True):
            assert side.worker_process is not None  # noqa: S101  (started above)
            with paused(side.worker_process.pid):
                fill_tutorial(side.redis_url, texts.take(count, self._words))
                began_at = time.time()
            return self._rate(side, side.name, began_at, count)

    def _rate(self, side: Side, name: str, began_at: float, expected: int) -> float:
        side.drain()
        stored = side.commits(began_at)
        if stored.rows != expected:
            message = f"{name} stored {stored.rows} of {expected}"
            raise Void(message)
        self._keep(side, name, began_at, stored)
        return stored.rate(began_at)

    def _keep(self, side: Side, name: str, began_at: float, stored: Commits) -> None:
        points = stored.over_time(began_at, STEP_SECONDS)
        self.over_time[name] = Line(name=name, points=points)
        if side.table == "documents":
            self.latency[name] = Line(
                name=f"{name}, {self._words} words",
                points=queue_latency(side.database_url, began_at),
            )


def measure(run: Run) -> PartResult:
    """Measure both sizes of documents, without and with a destination."""
    findings, plots = [], []
    rounds: dict[str, Rounds] = {}
    latency: list[Line] = []
    for words, asked in ASKED.items():
        load = Bulk(run, words)
        turns = load.measure()
        what = f"NDJSON bulk, {words} words, stored and classified/s"
        rounds[what] = turns
        tutorials = [name for name in turns if name.startswith("tutorial")]
        for ours, suffix in ((OURS, ""), (WITH_DESTINATION, ", with a destination")):
            found, detail = ratio(turns, ours, *tutorials)
            findings.append(
                Finding(
                    what=f"{what} ÷ tutorial's{suffix}", found=found, asked=asked, detail=detail
                )
            )
        plots.append(
            Plot(
                name=f"bulk-{words}-rate",
                title=f"NDJSON bulk, {words} words: stored and classified",
                kind="rate",
                lines=list(load.over_time.values()),
            )
        )
        latency += load.latency.values()
    plots.append(
        Plot(
            name="bulk-latency",
            title="NDJSON bulk: appended → stored, by percentile",
            kind="latency",
            lines=latency,
        )
    )
    return PartResult(findings=findings, rounds=rounds, plots=plots)
