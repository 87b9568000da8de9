"""``make bench``: Docyard against the baselines, as ratios from one run.

Rounds are interleaved and medians taken: machines are shared and noisy. Both sides get the same
bytes, every document differs, Valkey runs with ``appendfsync always`` and Postgres with fsync. A
side that loses or refuses a document makes the run void.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import timeit
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psycopg
import redis

from app.local.folder import DataFolder
from app.local.servers import PrivateServers
from app.storage.engine import sqlalchemy_url
from app.storage.migrate import migrate
from bench import sides
from bench.load import run_load
from bench.receiver import TimingReceiver
from bench.sides import PROJECT, Side

Rates = dict[str, list[float]]
LATENCY_DOCUMENTS = 60


@contextmanager
def servers() -> Iterator[tuple[str, str]]:
    """Start a Postgres and a Valkey in a temporary folder; yield their URLs."""
    with tempfile.TemporaryDirectory(prefix="docyard-bench-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        folder = DataFolder(Path(name) / "data")
        folder.claim()
        private = PrivateServers(folder, with_postgres=True, with_valkey=True)
        try:
            for start in private.starters():
                start()
            assert private.postgres is not None  # noqa: S101  (asked for above)
            assert private.valkey is not None  # noqa: S101  (likewise)
            migrate(private.postgres.url())
            _make_tutorial_table(private.postgres.url())
            yield private.postgres.url(), private.valkey.url()
        finally:
            folder.run.stop_all()


def main() -> None:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", default=["accepted", "stored", "latency", "deliver"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of load in each round")
    parser.add_argument("--words", type=int, default=250, help="in each document")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    asked = parser.parse_args()
    runs: dict[str, Callable[[str, str, argparse.Namespace], dict[str, object]]] = {
        "accepted": accepted,
        "stored": stored,
        "latency": latency,
    }
    results: dict[str, object] = {"machine": machine()}
    print(json.dumps(results["machine"]))
    with servers() as (database_url, redis_url):
        plain = database_url.replace("postgresql+psycopg://", "postgresql://")
        for name in asked.names:
            if name in runs:
                results[name] = runs[name](plain, redis_url, asked)
    if "deliver" in asked.names:
        subprocess.run([sys.executable, "-m", "bench.deliver"], cwd=PROJECT, check=True)
    if asked.out:
        asked.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def accepted(database_url: str, redis_url: str, asked: argparse.Namespace) -> dict[str, object]:
    """Measure accepted documents a second, workers off."""
    contestants = [
        sides.docyard(database_url, redis_url),
        sides.tutorial(database_url, redis_url, 4, 4),
        sides.floor(database_url, redis_url),
    ]
    contestants[1].name = "tutorial"
    rates: Rates = {side.name: [] for side in contestants}
    for _ in range(asked.rounds):
        for side in contestants:
            with running(side):
                run_load(side.url, 1, asked.words)
                result = run_load(side.url, asked.seconds, asked.words)
                if result.refused:
                    message = f"void: {side.name} refused {result.refused} documents"
                    raise RuntimeError(message)
                rates[side.name].append(result.accepted / result.seconds)
    return report("accepted/s, 64 connections, worker off", rates)


def stored(database_url: str, redis_url: str, asked: argparse.Namespace) -> dict[str, object]:
    """Measure stored and classified documents a second: first byte to last commit."""
    contestants = [
        sides.docyard(database_url, redis_url),
        sides.tutorial(database_url, redis_url, 4, 4),
        sides.tutorial(database_url, redis_url, 2, 8),
    ]
    rates: Rates = {side.name: [] for side in contestants}
    for _ in range(asked.rounds):
        for side in contestants:
            with running(side, workers=True):
                before = side.stored()
                result = run_load(side.url, asked.seconds, asked.words)
                if result.refused:
                    message = f"void: {side.name} refused {result.refused} documents"
                    raise RuntimeError(message)
                ended_at = side.drain(before + result.accepted)
                count = side.stored() - before
                _require_no_rejects(side, database_url)
                rates[side.name].append(count / (ended_at - result.began_at))
    return report("stored and classified/s, 64 connections, workers on", rates)


def latency(database_url: str, redis_url: str, asked: argparse.Namespace) -> dict[str, object]:  # noqa: ARG001  (as the others)
    """Measure an idle system: POST to stored, POST to received by a webhook."""
    side = sides.docyard(database_url, redis_url)
    to_received: list[float] = []
    with running(side, workers=True), TimingReceiver() as receiver:
        to_stored = [_until_stored(side, database_url) for _ in range(LATENCY_DOCUMENTS)]
        _post(side.url + "/destinations", {"key": "bench", "url": receiver.url})
        for _ in range(LATENCY_DOCUMENTS):
            document_id = str(uuid.uuid4())
            began_at = time.perf_counter()
            _post(side.url + "/documents", {"id": document_id, "content": "an idle document"})
            to_received.append(receiver.wait_for(document_id) - began_at)
            time.sleep(0.05)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE destinations SET deleted_at = now(), enabled = false")
        connection.execute("UPDATE config_versions SET version = version + 1")
    found = {
        "post_to_stored_ms": _quantiles(to_stored),
        "post_to_received_ms": _quantiles(to_received),
    }
    print(f"\nidle latency, {LATENCY_DOCUMENTS} documents each")
    for name, values in found.items():
        print(f"  {name:24} " + "  ".join(f"{key} {value:.1f}" for key, value in values.items()))
    return dict(found)


def report(title: str, rates: Rates) -> dict[str, object]:
    """Print medians, and the first side's ratio to each other."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    first = next(iter(medians.values()))
    print(f"\n{title}")
    for name, value in medians.items():
        rounds = ", ".join(f"{rate:,.0f}" for rate in rates[name])
        print(f"  {name:18} {value:9,.0f}   ratio {first / value:6.2f}   rounds {rounds}")
    return {"rates": rates, "medians": medians}


@contextmanager
def running(side: Side, *, workers: bool = False) -> Iterator[None]:
    """Run a side's processes on empty tables and queues."""
    side.clear()
    try:
        side.start_web()
        if workers:
            side.start_worker()
        yield
    finally:
        side.stop()


def machine() -> dict[str, object]:
    """Return what the numbers depend on."""
    with tempfile.TemporaryFile() as file:
        times = [_sync_seconds(file) for _ in range(50)]
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "fsync_ms": round(statistics.median(times) * 1000, 3),
        "system": platform.platform(),
    }


def _sync_seconds(file: IO[bytes]) -> float:
    file.write(b"x" * 2048)
    file.flush()
    return timeit.timeit(lambda: os.fsync(file.fileno()), number=1)


def _until_stored(side: Side, database_url: str) -> float:
    document_id = str(uuid.uuid4())
    with psycopg.connect(database_url, autocommit=True) as connection:
        began_at = time.perf_counter()
        _post(side.url + "/documents", {"id": document_id, "content": "an idle document"})
        while not connection.execute(
            "SELECT 1 FROM documents WHERE tenant_id = 1 AND id = %s", (document_id,)
        ).fetchone():
            time.sleep(0.001)
        took = time.perf_counter() - began_at
    threading.Event().wait(0.05)
    return took


def _post(url: str, body: dict[str, str]) -> None:
    request = urllib.request.Request(  # noqa: S310  (http on loopback)
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  (likewise)
        answer.read()


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(one * 1000 for one in seconds)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[int(len(ordered) * 0.95)],
        "max": ordered[-1],
    }


def _make_tutorial_table(database_url: str) -> None:
    from sqlmodel import SQLModel, create_engine  # noqa: PLC0415  (only here)

    from bench.tutorial import TutorialDocument  # noqa: PLC0415  (defines the table)

    engine = create_engine(sqlalchemy_url(database_url))
    table = SQLModel.metadata.tables[str(TutorialDocument.__tablename__)]
    SQLModel.metadata.create_all(engine, [table])
    engine.dispose()


def _require_no_rejects(side: Side, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM rejected_documents").fetchone()
    client = redis.Redis.from_url(side.redis_url)
    dead = sum(int(client.zcard(key)) for key in client.scan_iter("*.XQ"))
    client.close()
    if (row and row[0]) or dead:
        message = f"void: {side.name} rejected documents"
        raise RuntimeError(message)


if __name__ == "__main__":
    main()
