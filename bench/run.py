"""What every part of the benchmark is given: servers, sizes, and rounds that take turns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import sides, texts
from bench.results import Rounds
from bench.servers import Servers
from bench.sides import Side

TUTORIAL_FORMS = ((4, 4), (2, 8))
"""Processes and threads; the better one counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured.

    Attributes:
        rounds: of each comparison; medians count.
        seconds: of load by ``wrk`` in each round.
        bulk: documents of an upload, by their words.
        tutorial: how many of the same documents the tutorial's side drains.
        lanes: documents of the bulk load behind which single ones are timed.
        idle_seconds: how long single documents are timed without it.
        rows: in the large table.
        growth: documents of an upload into it.
        fanout: documents for three destinations.
        scaling: documents in the queue that one and two processes drain.
        classified: documents classified in a round.
        idle: single documents on an idle system.
        deliveries: in a round, to all receivers together.
        retained: old documents that retention removes.
        pairs: of turns with and without that.
    """

    rounds: int
    seconds: int
    bulk: Mapping[int, int]
    tutorial: int
    lanes: int
    idle_seconds: int
    rows: int
    growth: int
    fanout: int
    scaling: int
    classified: int
    idle: int
    deliveries: int
    retained: int
    pairs: int


FULL = Scale(
    rounds=3,
    seconds=5,
    bulk={250: 60_000, 30: 150_000},
    tutorial=4_000,
    lanes=200_000,
    idle_seconds=15,
    rows=5_000_000,
    growth=100_000,
    fanout=20_000,
    scaling=60_000,
    classified=10_240,
    idle=60,
    deliveries=20_000,
    retained=500_000,
    pairs=10,
)
SHORT = Scale(
    rounds=1,
    seconds=2,
    bulk={250: 10_000, 30: 30_000},
    tutorial=800,
    lanes=20_000,
    idle_seconds=3,
    rows=200_000,
    growth=20_000,
    fanout=2_000,
    scaling=20_000,
    classified=2_560,
    idle=10,
    deliveries=2_000,
    retained=100_000,
    pairs=2,
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the benchmark on servers of its own."""

    servers: Servers
    scale: Scale

    def docyard(self, name: str = "Docyard", *worker: str) -> Side:
        """Return Docyard; more arguments go to its worker."""
        return self._on_empty(sides.docyard(*self._where, name, *worker))

    def tutorials(self) -> list[Side]:
        """Return the tutorial's design in its forms."""
        return [self._on_empty(sides.tutorial(*self._where, *form)) for form in TUTORIAL_FORMS]

    def floor(self) -> Side:
        """Return the route that does nothing."""
        return sides.floor(*self._where)

    @property
    def _where(self) -> tuple[str, str]:
        return self.servers.database_url(), self.servers.redis_url

    def _on_empty(self, side: Side) -> Side:
        side.empty_database = self.servers.empty_database
        return side

    @contextmanager
    def ndjson(self, count: int, words: int, ids: Iterator[str] | None = None) -> Iterator[Path]:
        """Write documents into a file that goes afterwards."""
        file = self.servers.folder / f"{words}.ndjson"
        texts.write_ndjson(file, count, words, ids)
        try:
            yield file
        finally:
            file.unlink()

    def take_turns(self, contestants: Mapping[str, Callable[[], float]]) -> Rounds:
        """Let each contestant have its turn in every round; return the rates.

        Machines are shared and noisy: what disturbs a round disturbs all. Every other round goes
        backwards, so that nobody always comes behind the same neighbour.
        """
        rates: Rounds = {name: [] for name in contestants}
        order = list(contestants)
        for number in range(1, self.scale.rounds + 1):
            for name in order:
                rates[name].append(contestants[name]())
                say(f"  round {number}: {name} {rates[name][-1]:,.0f}/s")
            order.reverse()
        return rates


def say(sentence: str) -> None:
    """Tell how far it is; the table alone goes to standard output."""
    print(sentence, file=sys.stderr, flush=True)
