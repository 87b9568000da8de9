"""Memory of each process after 1,000 documents."""

from __future__ import annotations

from bench import texts
from bench.processes import Process, memory, tree
from bench.receiving import counting_receiver, one_destination, require_delivered
from bench.results import Finding, PartResult
from bench.run import Run

WORDS = 250
DOCUMENTS = 1_000
WEB_MB, DELIVERY_MB, INGEST_MB = 110, 110, 220


def measure(run: Run) -> PartResult:
    """Send 1,000 documents to one destination, with two ingest processes."""
    side = run.docyard("Docyard", "--ingest-processes", "2")
    with (
        side.running(workers=True),
        counting_receiver() as receiver,
        one_destination(side, receiver),
    ):
        for text in texts.take(DOCUMENTS, WORDS):
            side.post(f'{{"content": "{text}"}}')
        side.drain()
        require_delivered(side, receiver, DOCUMENTS)
        assert side.web_process is not None  # noqa: S101  (started above)
        assert side.worker_process is not None  # noqa: S101  (likewise)
        below = tree(side.worker_process.pid)
        web = [memory(side.web_process.pid)["rss"]]
        delivery = [memory(one.pid)["rss"] for one in _of_kind(below, "delivery", 1)]
        ingest = [memory(one.pid)["pss"] for one in _of_kind(below, "ingest", 2)]
    return PartResult(
        findings=[
            _finding("web process, RSS", web, WEB_MB),
            _finding("delivery process, RSS", delivery, DELIVERY_MB),
            _finding("ingest process, PSS with two of them", ingest, INGEST_MB),
        ]
    )


def _of_kind(below: list[Process], kind: str, expected: int) -> list[Process]:
    """Return the children of a kind: ``python -m worker.child KIND``."""
    found = [one for one in below if "worker.child" in one.command and kind in one.command.split()]
    if len(found) != expected:
        message = f"found {len(found)} {kind} processes, expected {expected}"
        raise RuntimeError(message)
    return found


def _finding(what: str, sizes: list[float], asked: int) -> Finding:
    return Finding(
        what=f"{what}, after {DOCUMENTS:,} documents",
        found=max(sizes),
        unit="MB",
        asked=asked,
        sense="at most",
        detail=" and ".join(f"{size:.0f} MB" for size in sizes) if len(sizes) > 1 else "",
    )
