"""How Postgres goes about what a function runs, and how long that takes; undone afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from sqlalchemy import Connection, Engine

from app.storage.engine import driver_of, transaction
from bench.world import World

Call = Callable[[Connection, World], object]


@dataclass(frozen=True, slots=True)
class Scan:
    """A node that reads a table or an index.

    Attributes:
        kind: "Seq Scan", "Index Scan", …
        source: the index where there is one, else the table.
        condition: by which the index is entered, as Postgres writes it.
    """

    kind: str
    source: str
    condition: str


@dataclass(frozen=True, slots=True)
class Explained:
    """A statement and how Postgres goes about it."""

    statement: str
    plan: Mapping[str, Any]

    def scans(self) -> Iterator[Scan]:
        """Yield every node that reads a table or an index."""
        waiting = [self.plan]
        while waiting:
            node = waiting.pop()
            waiting += node.get("Plans", [])
            source = node.get("Index Name") or node.get("Relation Name")
            if source and "Scan" in node["Node Type"]:
                yield Scan(node["Node Type"], source, node.get("Index Cond", ""))


def explain(engine: Engine, call: Call, world: World) -> list[Explained]:
    """Return the plans of everything that a call runs, with the values it gives; undone after."""
    with transaction(engine) as connection:
        with _noted(connection) as statements:
            call(connection, world)
        explained = []
        for statement, values in statements:
            answer = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values)
            explained.append(Explained(statement, answer.scalar_one()[0]["Plan"]))
        connection.rollback()
        return explained


def milliseconds(engine: Engine, call: Call, world: World) -> float:
    """Return how long a call takes, undone after."""
    with transaction(engine) as connection:
        began_at = time.perf_counter()
        call(connection, world)
        took = time.perf_counter() - began_at
        connection.rollback()
    return took * 1000


@contextmanager
def _noted(connection: Connection) -> Iterator[list[tuple[str, Any]]]:
    """Note what runs on a connection, as the driver is given it."""
    statements: list[tuple[str, Any]] = []

    class Noting(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
            statements.append((query, params))
            return super().execute(query, params, **options)

    with driver_of(connection) as driver:
        usual = driver.cursor_factory
        driver.cursor_factory = Noting
        try:
            yield statements
        finally:
            driver.cursor_factory = usual
