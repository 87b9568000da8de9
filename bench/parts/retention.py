"""Single POSTs while retention removes old rows ÷ while it has nothing to do."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import psycopg

from app.domain.identifiers import new_id
from bench import rows
from bench.load import run_load
from bench.results import Finding, PartResult, Rounds, Void
from bench.run import Run, say
from bench.sides import docyard

WORDS = 250
ASKED = 0.9
DATABASE = "bench_retained"
OLD_FOR_EACH = 2
"""Ended deliveries of each old document."""
BESIDE, WITHOUT = "beside retention", "without"
FOR_EVER = {
    f"{kind}_RETENTION_DAYS": "0"
    for kind in ("DOCUMENTS", "DELIVERIES", "EVENTS", "BATCHES", "COUNTERS", "TOMBSTONES")
}


def measure(run: Run) -> PartResult:
    """Measure pairs that take turns on one database, with more old rows than can go meanwhile."""
    count = run.scale.retained
    url = run.servers.database_url(DATABASE)
    run.servers.empty_database(DATABASE)
    say(f"  making {count:,} old documents with {OLD_FOR_EACH} deliveries each")
    rows.make_documents(url, count)
    for _ in range(OLD_FOR_EACH):
        rows.make_deliveries(url, new_id(), count, state="delivered", attempts=1)
    rows.tidy(url)
    removed: list[int] = []
    stored: Rounds = {BESIDE: [], WITHOUT: []}

    def rate(name: str, days: str) -> float:
        side = docyard(url, run.servers.redis_url, name)
        side.environment = {**FOR_EVER, "DOCUMENTS_RETENTION_DAYS": days}
        before = _removed(url)
        with side.running(workers=True):
            load = run_load(side.url, run.scale.seconds, WORDS)
            side.drain()
            rows_stored = side.commits(load.began_at)
        gone = _removed(url) - before
        if (gone > 0) != (name == BESIDE):
            message = f"{name}: {gone} old documents went"
            raise Void(message)
        if rows_stored.rows < load.accepted:
            message = f"stored {rows_stored.rows} of {load.accepted}"
            raise Void(message)
        removed.append(gone)
        stored[name].append(rows_stored.rate(load.began_at))
        return load.rate

    turns = replace(run, scale=replace(run.scale, rounds=run.scale.pairs)).take_turns(
        {BESIDE: lambda: rate(BESIDE, "1"), WITHOUT: lambda: rate(WITHOUT, "0")}
    )
    run.servers.drop_database(DATABASE)
    load = f"single POSTs, 64 connections, {WORDS} words"
    gone = median(one for one in removed if one)
    return PartResult(
        findings=[
            _finding(f"accepted/s, {load}, beside retention ÷ without", turns, gone),
            _finding(f"stored and classified/s, {load}, beside retention ÷ without", stored, gone),
        ],
        rounds={f"accepted/s, {load}": turns, f"stored/s, {load}": stored},
    )


def _finding(what: str, rounds: Rounds, gone: float) -> Finding:
    """Return the median of the pairs' ratios: neighbours share what disturbs the machine."""
    pairs = [mine / other for mine, other in zip(rounds[BESIDE], rounds[WITHOUT], strict=True)]
    return Finding(
        what=what,
        found=median(pairs),
        asked=ASKED,
        detail=f"{len(pairs)} pairs from {min(pairs):.2f} to {max(pairs):.2f};"
        f" {gone:,.0f} old documents went in a turn, with {OLD_FOR_EACH} deliveries each",
    )


def _removed(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT removed FROM retention_walks WHERE name = 'documents'"
        ).fetchone()
    return int(row[0]) if row else 0
