"""Keep the newest version of every document in a table of another Postgres.

::

    export SEARCH_DATABASE_URL=postgresql://…
    COLLECTORS=examples.collectors.postgres_table python -m app worker

A delivery may come twice, and an older version may arrive behind a newer one: the statement writes
a row only where it is newer than the one that is there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.types.json import Jsonb

from app.collectors import Context, Error, Ok, Payload, collector

TABLE = """
    CREATE TABLE IF NOT EXISTS articles (
        id uuid PRIMARY KEY,
        version bigint NOT NULL,
        seq bigint NOT NULL,
        category text,
        confidence double precision,
        body jsonb NOT NULL
    )
"""
UPSERT = """
    INSERT INTO articles AS a (id, version, seq, category, confidence, body)
    VALUES (%(id)s, %(version)s, %(seq)s, %(category)s, %(confidence)s, %(body)s)
    ON CONFLICT (id) DO UPDATE SET version = EXCLUDED.version, seq = EXCLUDED.seq,
        category = EXCLUDED.category, confidence = EXCLUDED.confidence, body = EXCLUDED.body
    WHERE (a.version, a.seq) < (EXCLUDED.version, EXCLUDED.seq)
"""


class Table:
    """One connection for all calls of a process, opened again when it breaks."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.AsyncConnection | None = None
        self._turn = asyncio.Lock()

    async def write(self, statement: str, **values: object) -> int:
        """Run a statement in a transaction of its own; return how many rows it wrote."""
        async with self._turn:
            if self._connection is None or self._connection.closed:
                self._connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=5
                )
            return (await self._connection.execute(statement, values)).rowcount

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()


class TableContext(Context):
    """What the collector keeps between its calls."""

    table: Table


@asynccontextmanager
async def open_table(ctx: TableContext) -> AsyncIterator[None]:
    """Connect when the process starts; until that works, the collector is unavailable."""
    ctx.table = Table(os.environ["SEARCH_DATABASE_URL"])
    try:
        await ctx.table.write(TABLE)
        yield
    finally:
        await ctx.table.close()


@collector("postgres-table", lifecycle=open_table, ctx=TableContext, timeout_seconds=15)
async def keep(payload: Payload, ctx: TableContext) -> Ok | Error:
    """Write a document; the value says whether it was news."""
    document, prediction = payload.document, payload.prediction
    try:
        written = await ctx.table.write(
            UPSERT,
            id=document.id,
            version=document.version,
            seq=document.seq,
            category=prediction.category if prediction else None,
            confidence=prediction.confidence if prediction else None,
            body=Jsonb(payload.value),
        )
    except psycopg.OperationalError as error:
        return Error(f"the database is away: {error}", retry_after=10)
    except psycopg.DataError as error:
        return Error(f"the database cannot hold it: {error}", permanent=True)
    return Ok({"written": bool(written)})
