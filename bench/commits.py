"""When rows were committed, by Postgres' own record (``track_commit_timestamp``).

Exact to the microsecond, complete, and read when all is over: counting rows while they are written
would take its share of the same two cores. The clock is this machine's, as ``time.time()`` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

PERCENTILES = (0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100)


@dataclass(frozen=True, slots=True)
class Commits:
    """Rows by the time of their commit, in order: (seconds since 1970, rows)."""

    steps: Sequence[tuple[float, int]]

    @property
    def rows(self) -> int:
        """How many in all."""
        return sum(count for _, count in self.steps)

    @property
    def ended_at(self) -> float:
        """When the last row was committed."""
        return self.steps[-1][0]

    def rate(self, began_at: float) -> float:
        """Return rows a second from a moment to the last commit."""
        return self.rows / (self.ended_at - began_at)

    def over_time(self, began_at: float, step_seconds: float) -> list[tuple[float, float]]:
        """Return (seconds, rows a second) for each whole step."""
        buckets: dict[int, int] = {}
        for at, count in self.steps:
            bucket = int((at - began_at) / step_seconds)
            buckets[bucket] = buckets.get(bucket, 0) + count
        # The last step is seldom a whole one; its rate would look like a fall.
        last = int((self.ended_at - began_at) / step_seconds)
        return [
            ((bucket + 0.5) * step_seconds, buckets.get(bucket, 0) / step_seconds)
            for bucket in range(max(1, last))
        ]


def commits(database_url: str, table: str, since: float) -> Commits:
    """Return when the rows of a table were committed, from a moment on."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT extract(epoch FROM at)::float8, rows FROM ("  # noqa: S608  (a constant)
            f" SELECT pg_xact_commit_timestamp(xmin) AS at, count(*) AS rows FROM {table}"
            " GROUP BY 1) committed WHERE at >= to_timestamp(%s) ORDER BY 1",
            (since,),
        ).fetchall()
    return Commits([(float(at), int(count)) for at, count in rows])


def queue_latency(database_url: str, since: float) -> list[tuple[float, float]]:
    """Return (percentile, milliseconds) from the append in Redis to the commit of a document."""
    shares = [percentile / 100 for percentile in PERCENTILES]
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT percentile_cont(%s::float8[]) WITHIN GROUP (ORDER BY"
            " extract(epoch FROM pg_xact_commit_timestamp(xmin) - created_at)::float8 * 1000)"
            " FROM documents WHERE created_at >= to_timestamp(%s)",
            (shares, since),
        ).fetchone()
    values = row[0] if row else []
    return [(percentile, float(ms)) for percentile, ms in zip(PERCENTILES, values, strict=True)]


def percentiles(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return (percentile, value) of a sample, by the nearest rank."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return [(share, ordered[round(share / 100 * last)]) for share in PERCENTILES]
