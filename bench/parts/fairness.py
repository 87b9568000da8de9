"""What bad destinations cost the good ones: POST → received, with them and without."""

from __future__ import annotations

import json
import statistics
import time
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from app.domain.destinations import DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT
from app.storage import destinations
from app.storage.engine import make_engine, transaction
from bench.commits import percentiles
from bench.moody_receiver import moody_receiver
from bench.receiving import get
from bench.results import Finding, PartResult, Void
from bench.run import Run, say
from bench.sides import Side
from bench.upload import upload

GOOD = [f"ok/{number}" for number in range(8)]
BAD = ["hang/0", "bad/0"]
PER_SECOND = 20
SETTLE_SECONDS = 10.0
FLOOD = 100_000
HANGING = 200
PAIRS = 5


def measure(run: Run) -> PartResult:
    """Run the pairs and the two extremes; each on empty tables."""
    side = run.docyard()
    seconds = 3 * run.scale.seconds
    with moody_receiver() as url:
        without: list[float] = []
        beside: list[float] = []
        pairs = min(PAIRS, 2 * run.scale.rounds)
        for number in range(1, pairs + 1):
            turns = [(without, GOOD), (beside, [*GOOD, *BAD])]
            for found, paths in turns if number % 2 else reversed(turns):
                found.append(_p95(_arrivals(side, url, paths, seconds)))
            say(f"  pair {number}: p95 {without[-1]:.1f} ms without, {beside[-1]:.1f} ms beside")
        ratio = statistics.median(b / a for a, b in zip(without, beside, strict=True))
        hanging = [f"hang/{number}" for number in range(HANGING)]
        crowded = _p95(_arrivals(side, url, [*GOOD, *hanging], seconds, per_second=5))
        say(f"  beside {HANGING} that hang: p95 {crowded:.0f} ms")
        alone, flooded = _beside_a_flood(run, side, url)
        say(f"  beside {FLOOD:,} due elsewhere: {flooded:.0f} ms, alone {alone:.0f} ms")
    return PartResult(
        findings=[
            Finding(
                what="p95 of POST → received at 8 destinations, beside one that hangs 30 s and one"
                " that answers 503 ÷ without them",
                found=ratio,
                asked=1.3,
                sense="at most",
                detail=f"medians {statistics.median(beside):.1f} and"
                f" {statistics.median(without):.1f} ms, {pairs} pairs",
            ),
            Finding(
                what=f"p95 of POST → received beside {HANGING} destinations that hang, one delivery"
                " process",
                found=crowded,
                unit="ms",
                asked=2000,
                sense="at most",
            ),
            Finding(
                what=f"slowest of 10 deliveries beside another with {FLOOD:,} due, minus alone",
                found=flooded - alone,
                unit="ms",
                asked=1000,
                sense="at most",
                detail=f"slowest {flooded:.0f} ms, alone {alone:.0f} ms",
            ),
        ],
        rounds={"p95 of POST → received, ms": {"without": without, "beside bad ones": beside}},
    )


def _arrivals(
    side: Side, url: str, paths: Sequence[str], seconds: float, per_second: int = PER_SECOND
) -> list[float]:
    """Return the milliseconds from POST to each good destination, for every document."""
    get(f"{url}arrivals")
    with side.running(workers=True):
        make_destinations(side, url, paths)
        posted = _post_for(side, seconds, per_second)
        return _latencies(url, posted, len(GOOD))


def _post_for(side: Side, seconds: float, per_second: int) -> dict[str, float]:
    """POST documents at a steady rate; return when each was."""
    posted: dict[str, float] = {}
    began_at = time.monotonic()
    for number in range(int(seconds * per_second)):
        time.sleep(max(0.0, began_at + number / per_second - time.monotonic()))
        document_id = uuid.uuid4()
        posted[document_id.hex] = time.monotonic()
        side.post(json.dumps({"id": str(document_id), "content": "a document for everybody"}))
    return posted


def _latencies(url: str, posted: dict[str, float], receivers: int) -> list[float]:
    """Wait until everything has arrived; return how long each took, in milliseconds.

    Raises:
        Void: something did not arrive.
    """
    found: dict[tuple[str, str], float] = {}
    end = time.monotonic() + SETTLE_SECONDS
    while len(found) < len(posted) * receivers:
        if time.monotonic() > end:
            message = f"{len(found)} of {len(posted) * receivers} arrived"
            raise Void(message)
        for path, webhook_id, at in json.loads(get(f"{url}arrivals")):
            document = webhook_id.split("_")[1]
            if document in posted:
                found.setdefault((path, document), (at - posted[document]) * 1000)
        time.sleep(0.1)
    return list(found.values())


def _beside_a_flood(run: Run, side: Side, url: str) -> tuple[float, float]:
    """Return the milliseconds of the slowest of single deliveries: alone, and beside a flood."""
    slowest = []
    with side.running(workers=True):
        is_single = "attributes.single"
        make_destinations(side, url, ["ok/flood"], filter={is_single: {"$exists": False}})
        make_destinations(side, url, ["ok/single"], filter={is_single: True})
        for flood in (0, FLOOD):
            with run.ndjson(flood, 30) as file:
                if flood:
                    upload(side.url, file, flood)
            taken = [_one(side, url) for _ in range(10)]
            slowest.append(max(taken))
    return slowest[0], slowest[1]


def _one(side: Side, url: str) -> float:
    document_id = uuid.uuid4()
    get(f"{url}arrivals")
    began_at = time.monotonic()
    body = {"id": str(document_id), "content": "alone", "attributes": {"single": True}}
    side.post(json.dumps(body))
    (taken,) = _latencies(url, {document_id.hex: began_at}, 1)
    time.sleep(0.3)
    return taken


def make_destinations(side: Side, url: str, paths: Iterable[str], **fields: object) -> None:
    """Register destinations, each with its path below a URL and a key made of it."""
    engine = make_engine(side.database_url, application_name="bench")
    with transaction(engine) as connection:
        for path in paths:
            given = DestinationInput.model_validate(
                {"key": path.replace("/", "-"), "url": f"{url}{path}", **fields}
            )
            made = make_destination(DEFAULT_TENANT, given, now=datetime.now(UTC))
            destinations.create(connection, made)
    engine.dispose()


def _p95(values: Sequence[float]) -> float:
    return dict(percentiles(values))[95]
