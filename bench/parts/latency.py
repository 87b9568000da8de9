"""An idle system: POST → stored, and POST → received by a webhook."""

from __future__ import annotations

import json
import time
import uuid

import psycopg

from bench.commits import percentiles
from bench.receiver import TimingReceiver
from bench.receiving import some_destinations
from bench.results import Finding, PartResult
from bench.run import Run
from bench.sides import Side

STORED_MS, RECEIVED_MS = 20, 40
PAUSE_SECONDS = 0.05
LOOK_SECONDS = 0.001


def measure(run: Run) -> PartResult:
    """Send documents one at a time, each when the last has arrived."""
    side, count = run.docyard(), run.scale.idle
    with side.running(workers=True), TimingReceiver() as receiver:
        stored = [_until_stored(side) for _ in range(count)]
        with some_destinations(side, ["bench"], receiver.url):
            received = [_until_received(side, receiver) for _ in range(count)]
    return PartResult(
        findings=[
            _finding("idle POST → row visible in Postgres, median", stored, STORED_MS),
            _finding("idle POST → received by a webhook, median", received, RECEIVED_MS),
        ],
        rounds={"idle, ms": {"stored": stored, "received": received}},
    )


def _until_stored(side: Side) -> float:
    document_id = str(uuid.uuid4())
    with psycopg.connect(side.database_url, autocommit=True) as connection:
        began_at = time.perf_counter()
        side.post(json.dumps({"id": document_id, "content": "an idle document"}))
        while not connection.execute(
            "SELECT 1 FROM documents WHERE tenant_id = 1 AND id = %s", (document_id,)
        ).fetchone():
            time.sleep(LOOK_SECONDS)
        took = time.perf_counter() - began_at
    time.sleep(PAUSE_SECONDS)
    return took * 1000


def _until_received(side: Side, receiver: TimingReceiver) -> float:
    document_id = str(uuid.uuid4())
    began_at = time.perf_counter()
    side.post(json.dumps({"id": document_id, "content": "an idle document"}))
    took = receiver.wait_for(document_id) - began_at
    time.sleep(PAUSE_SECONDS)
    return took * 1000


def _finding(what: str, values: list[float], asked: int) -> Finding:
    found = dict(percentiles(values))
    return Finding(
        what=what,
        found=found[50],
        unit="ms",
        asked=asked,
        sense="at most",
        detail=f"{len(values)} documents; p95 {found[95]:.1f}, max {found[100]:.1f} ms",
    )
