"""How far retention is with each kind of row, and that one process at a time is at it.

A round walks a kind from its beginning to its end, piece by piece, whoever's turn it is; the place
is kept with what was removed, in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, text

Cursor = list[Any]
"""The key behind which the next piece begins; JSON."""


class Piece(NamedTuple):
    """What a piece came to; without a cursor the round has ended."""

    removed: int
    cursor: Cursor | None


_REST = text(
    "UPDATE retention_walks SET next_at = clock_timestamp() + make_interval(secs => :rest)"
    " WHERE tenant_id = :tenant_id AND name = :name"
)


def due(connection: Connection, tenant_id: int, names: Sequence[str]) -> list[str]:
    """Return those walks that have something to do now, the one that waits longest first."""
    connection.execute(
        text(
            "INSERT INTO retention_walks (tenant_id, name) SELECT :tenant_id, name"
            " FROM unnest(CAST(:names AS text[])) AS name ORDER BY name ON CONFLICT DO NOTHING"
        ),
        {"tenant_id": tenant_id, "names": list(names)},
    )
    rows = connection.execute(
        text(
            "SELECT name FROM retention_walks WHERE tenant_id = :tenant_id AND name = ANY(:names)"
            " AND next_at <= clock_timestamp() ORDER BY next_at, name"
        ),
        {"tenant_id": tenant_id, "names": list(names)},
    )
    return [row.name for row in rows]


def advance(
    connection: Connection,
    tenant_id: int,
    name: str,
    step: Callable[[Connection, Cursor | None], Piece] | None,
    *,
    rest_seconds: float,
) -> Piece | None:
    """Take a walk one piece further; None when it is not due, or somebody else is at it.

    Args:
        connection: within a transaction.
        tenant_id: whose rows.
        name: of the walk.
        step: removes what is too old behind a cursor; None lets the walk rest where it is.
        rest_seconds: from the end of a round to the next.
    """
    key = {"tenant_id": tenant_id, "name": name}
    row = connection.execute(
        text(
            "SELECT cursor FROM retention_walks WHERE tenant_id = :tenant_id AND name = :name"
            " AND next_at <= clock_timestamp() FOR UPDATE SKIP LOCKED"
        ),
        key,
    ).one_or_none()
    if row is None:
        return None
    if step is None:
        connection.execute(_REST, {**key, "rest": rest_seconds})
        return None
    piece = step(connection, row.cursor)
    connection.execute(
        text(
            "UPDATE retention_walks SET cursor = CAST(:cursor AS json),"
            " removed = removed + :removed, next_at = CASE WHEN CAST(:cursor AS text) IS NULL"
            "  THEN clock_timestamp() + make_interval(secs => :rest) ELSE clock_timestamp() END,"
            " finished_at = CASE WHEN CAST(:cursor AS text) IS NULL THEN clock_timestamp()"
            "  ELSE finished_at END"
            " WHERE tenant_id = :tenant_id AND name = :name"
        ),
        {
            **key,
            "cursor": None if piece.cursor is None else orjson.dumps(piece.cursor).decode(),
            "removed": piece.removed,
            "rest": rest_seconds,
        },
    )
    return piece
