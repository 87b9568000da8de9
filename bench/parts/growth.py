"""Bulk into a table of 5 million rows ÷ into an empty one, and statements on both."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from random import Random
from statistics import median

from sqlalchemy import text

from app.storage.engine import make_engine, transaction
from bench.explain import milliseconds
from bench.results import Finding, PartResult, Void, ratio
from bench.run import Run, say
from bench.sides import Side, docyard
from bench.statements import STATEMENTS
from bench.upload import upload
from bench.world import make_world

WORDS = 30
ASKED = 0.75
LARGE = "bench_large"
EMPTY = "empty table"
SMALL_ROWS = 50_000
TIMES = 9
BYTES_PER_ROW = 2_000
"""With indexes, deliveries, log and a margin."""
KINDS = {"ids as the service makes them (UUIDv7)": False, "random ids of the client (UUIDv4)": True}


def measure(run: Run) -> PartResult:
    """Time the statements first; then bulk with rising ids, and with random ones.

    Random ids touch the whole index.
    """
    count = run.scale.rows
    _require_space(run, count)
    findings, rounds = _statements(run), {}
    for kind, random_ids in KINDS.items():
        turns = _compare(run, random_ids=random_ids)
        what = f"NDJSON bulk, {WORDS} words, {kind}, stored and classified/s"
        rounds[what] = turns
        found, detail = ratio(turns, _full(count), EMPTY)
        findings.append(
            Finding(
                what=f"{what} with {count:,} rows ÷ empty table",
                found=found,
                asked=ASKED,
                detail=detail,
            )
        )
    run.servers.drop_database(LARGE)
    return PartResult(findings=findings, rounds=rounds)


def _statements(run: Run) -> list[Finding]:
    """Time each statement on small tables and on the large ones, which stay."""
    took: dict[int, dict[str, float]] = {}
    for count in (SMALL_ROWS, run.scale.rows):
        say(f"  making {count:,} rows, and their deliveries")
        run.servers.empty_database(LARGE)
        engine = make_engine(run.servers.database_url(LARGE), application_name="bench")
        world = make_world(engine, run.servers.database_url(LARGE), count)
        took[count] = {
            name: median(milliseconds(engine, call, world) for _ in range(TIMES))
            for name, call in STATEMENTS.items()
        }
        with transaction(engine) as connection:
            # What is measured next goes to nobody.
            connection.execute(text("UPDATE destinations SET enabled = false"))
            connection.execute(text("UPDATE config_versions SET version = version + 1"))
        engine.dispose()
    return [
        Finding(
            what=name,
            found=ms,
            unit="ms",
            detail=f"{took[SMALL_ROWS][name]:.3g} ms with {SMALL_ROWS:,} rows",
            section="statements",
        )
        for name, ms in took[run.scale.rows].items()
    ]


def _compare(run: Run, *, random_ids: bool) -> dict[str, list[float]]:
    empty = run.docyard()
    # What was uploaded before stays in it: rows of one round more or less are nothing to it.
    large = docyard(run.servers.database_url(LARGE), run.servers.redis_url)
    numbers = Random(7)  # noqa: S311  (repeatable, not secret)

    def rate(side: Side) -> float:
        ids = _random_ids(numbers) if random_ids else None
        with run.ndjson(run.scale.growth, WORDS, ids) as file, side.running(workers=True):
            sent = upload(side.url, file, run.scale.growth)
            side.drain()
            stored = side.commits(sent.began_at)
        if stored.rows != run.scale.growth:
            message = f"stored {stored.rows} of {run.scale.growth}"
            raise Void(message)
        return stored.rate(sent.began_at)

    return run.take_turns({EMPTY: lambda: rate(empty), _full(run.scale.rows): lambda: rate(large)})


def _full(count: int) -> str:
    return f"{count:,} rows"


def _random_ids(numbers: Random) -> Iterator[str]:
    while True:
        yield str(uuid.UUID(int=numbers.getrandbits(128), version=4))


def _require_space(run: Run, count: int) -> None:
    free = shutil.disk_usage(run.servers.folder).free
    if free < count * BYTES_PER_ROW:
        message = (
            f"{count:,} rows want {count * BYTES_PER_ROW / 1e9:.0f} GB, {free / 1e9:.0f} are free"
        )
        raise Void(message)
