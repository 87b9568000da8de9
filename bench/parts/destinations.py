"""1,000 destinations of which three match ÷ those three alone: ingested and delivered."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import orjson

from bench import texts
from bench.commits import commits
from bench.receiving import counting_receiver, require_delivered, some_destinations
from bench.results import Finding, PartResult, ratio
from bench.run import Run
from bench.upload import upload

WORDS = 30
ASKED = 0.8
MATCHING = ("east", "south", "west")
MANY = 1_000
ALONE, AMONG = "three alone", f"three among {MANY:,}"


def measure(run: Run) -> PartResult:
    """Upload documents that name three destinations by key, and wait until all have them."""
    count = run.scale.fanout
    side = run.docyard()

    def rate(file: Path, keys: Sequence[str]) -> float:
        with (
            side.running(workers=True),
            counting_receiver() as receiver,
            some_destinations(side, keys, receiver),
        ):
            began_at = upload(side.url, file, count).began_at
            require_delivered(side, receiver, count * len(MATCHING))
            ended_at = commits(side.database_url, "deliveries", began_at).ended_at
        return count / (ended_at - began_at)

    others = [f"other-{number}" for number in range(MANY - len(MATCHING))]
    with tempfile.NamedTemporaryFile(dir=run.servers.folder, suffix=".ndjson") as output:
        for text in islice(texts.documents(WORDS), count):
            document = {"content": text, "delivery": "key", "keys": MATCHING}
            output.write(orjson.dumps(document) + b"\n")
        output.flush()
        file = Path(output.name)
        rounds = run.take_turns(
            {
                ALONE: lambda: rate(file, MATCHING),
                AMONG: lambda: rate(file, [*MATCHING, *others]),
            }
        )
    found, detail = ratio(rounds, AMONG, ALONE)
    what = f"documents/s ingested and delivered to 3 of {MANY:,} destinations"
    return PartResult(
        findings=[
            Finding(what=f"{what} ÷ to the 3 alone", found=found, asked=ASKED, detail=detail)
        ],
        rounds={what: rounds},
    )
