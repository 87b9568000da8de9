"""Attempts: written in bulk beside the results, read for one delivery."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, text

from app.domain.deliveries import AttemptRecord
from app.domain.delivery_ids import DeliveryPlace
from app.storage.deliveries import DeliveryResult
from app.storage.engine import driver_of
from app.storage.tables.attempts import AttemptRow

TABLE = AttemptRow.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table classes
MOST_SHOWN = 1_000

_COLUMNS = tuple(TABLE.columns.keys())
_COPY = f"COPY attempts ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT binary)"
# https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"
_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_HEAD = struct.Struct(">h ii i16s iq i16s ih ih iq")
_SIZE = struct.Struct(">i")
_SMALL = struct.Struct(">ih")
_BOOL = struct.Struct(">i?")
_REAL = struct.Struct(">if")
_POSTGRES_EPOCH = 946_684_800_000_000
"""2000, in microseconds since 1970: timestamps are counted from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAttempt:
    """An attempt as it is kept; see ``app.domain.attempts.Trace`` for its times.

    Attributes:
        kind: what it came to (``OutcomeKind``).
    """

    number: int
    started_at: datetime
    kind: str
    status: int | None
    error: str | None
    reused: bool | None
    name_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    wait_ms: float | None
    rest_ms: float | None
    total_ms: float | None
    headers: dict[str, str] | None
    body: str | None


def write(connection: Connection, results: Sequence[DeliveryResult]) -> None:
    """Keep the attempts of results.

    Every one counts, whoever has the lease by now: the receiver has seen it. COPY takes a third of
    the time that an INSERT of the same rows as JSON does, which is as long as signing them.

    Args:
        connection: within the transaction that records the results.
        results: those without an attempt are left out.

    Raises:
        IntegrityError: one of them is kept already, by a transaction whose end nobody heard of; see
            ``without_kept``.
    """
    rows = b"".join([_row(one, one.attempt) for one in results if one.attempt is not None])
    if not rows:
        return
    with driver_of(connection) as driver, driver.cursor() as cursor, cursor.copy(_COPY) as copy:
        copy.write(_BEGIN + rows + _END)


def without_kept(connection: Connection, results: Sequence[DeliveryResult]) -> list[DeliveryResult]:
    """Return results without those attempts that are kept already."""
    kept = {
        tuple(row)
        for row in connection.execute(
            text(
                "SELECT a.document_id, a.seq, a.destination_id, a.generation, a.number,"
                " a.started_at FROM json_to_recordset(CAST(:keys AS json)) AS k (tenant_id int,"
                "  document_id uuid, seq bigint, destination_id uuid, generation smallint,"
                "  number smallint, started_at timestamptz)"
                " JOIN attempts a USING (tenant_id, document_id, seq, destination_id, generation,"
                "  number, started_at)"
            ),
            {"keys": orjson.dumps([_key(one) for one in results if one.attempt]).decode()},
        )
    }
    return [
        one._replace(attempt=None) if one.attempt and tuple(_key(one).values())[1:] in kept else one
        for one in results
    ]


def _key(result: DeliveryResult) -> dict[str, Any]:
    assert result.attempt is not None  # noqa: S101  (asked for those alone)
    return {
        **result.key._asdict(),
        "number": result.attempts,
        "started_at": result.attempt.started_at,
    }


def _row(result: DeliveryResult, attempt: AttemptRecord) -> bytes:
    """Return a row in the binary format of COPY: the number of fields, each behind its size."""
    key, trace = result.key, attempt.trace
    head = _HEAD.pack(
        len(_COLUMNS),
        4,
        key.tenant_id,
        16,
        key.document_id.bytes,
        8,
        key.seq,
        16,
        key.destination_id.bytes,
        2,
        key.generation,
        2,
        result.attempts,
        8,
        round(attempt.started_at.timestamp() * 1_000_000) - _POSTGRES_EPOCH,
    )
    status = _NULL if result.status is None else _SMALL.pack(2, result.status)
    row = head + _text(attempt.kind.value) + status + _text(result.error)
    if trace is None:
        return row + 9 * _NULL
    return (
        row
        + (_NULL if trace.reused is None else _BOOL.pack(1, trace.reused))
        + _number(trace.name_ms)
        + _number(trace.connect_ms)
        + _number(trace.tls_ms)
        + _number(trace.wait_ms)
        + _number(trace.rest_ms)
        + _number(trace.total_ms)
        + _text(trace.headers)
        + _text(trace.body)
    )


def _number(value: float | None) -> bytes:
    return _NULL if value is None else _REAL.pack(4, value)


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    data = value.encode()
    return _SIZE.pack(len(data)) + data


def of_delivery(
    connection: Connection, tenant_id: int, place: DeliveryPlace
) -> list[StoredAttempt]:
    """Return the attempts at a delivery that are still kept, the first one first."""
    rows = connection.execute(
        text(
            "SELECT number, started_at, kind, status, error, reused, name_ms, connect_ms, tls_ms,"
            " wait_ms, rest_ms, total_ms, headers, body FROM attempts"
            " WHERE tenant_id = :tenant_id AND document_id = :document_id AND seq = :seq"
            " AND destination_id = :destination_id AND generation = :generation"
            " ORDER BY started_at, number LIMIT :limit"
        ),
        {"tenant_id": tenant_id, **place._asdict(), "limit": MOST_SHOWN},
    )
    return [StoredAttempt(**row._asdict()) for row in rows]
