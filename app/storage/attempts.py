"""Attempts: written in bulk beside the results, read for one delivery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson
import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.domain.deliveries import AttemptRecord
from app.domain.delivery_ids import DeliveryPlace
from app.storage.deliveries import DeliveryResult
from app.storage.tables import AttemptRow

TABLE = AttemptRow.__table__  # type: ignore[attr-defined]  # SQLModel sets it on table classes
MOST_SHOWN = 1_000

_COLUMNS = tuple(TABLE.columns.keys())
_COPY = f"COPY attempts ({', '.join(_COLUMNS)}) FROM STDIN"
_NULL = "\\N"
_NO_VALUE = f"\t{_NULL}"


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
    rows = "".join(_line(one, one.attempt) for one in results if one.attempt is not None)
    if not rows:
        return
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101  (within a transaction)
    try:
        with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.write(rows)
    except psycopg.Error as error:
        # As SQLAlchemy would have raised it.
        raise DBAPIError.instance(_COPY, None, error, psycopg.Error) from error


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
        replace(one, attempt=None) if one.attempt and tuple(_key(one).values())[1:] in kept else one
        for one in results
    ]


def _key(result: DeliveryResult) -> dict[str, Any]:
    assert result.attempt is not None  # noqa: S101  (asked for those alone)
    return {
        **result.key._asdict(),
        "number": result.attempts,
        "started_at": result.attempt.started_at,
    }


def _line(result: DeliveryResult, attempt: AttemptRecord) -> str:
    """Return a row in the text format of COPY."""
    key, trace = result.key, attempt.trace
    status = _NULL if result.status is None else result.status
    line = (
        f"{key.tenant_id}\t{key.document_id.hex}\t{key.seq}\t{key.destination_id.hex}"
        f"\t{key.generation}\t{result.attempts}\t{attempt.started_at.isoformat()}"
        f"\t{attempt.kind.value}\t{status}\t{_text(result.error)}"
    )
    if trace is None:
        return f"{line}{9 * _NO_VALUE}\n"
    return (
        f"{line}\t{_NULL if trace.reused is None else trace.reused}"
        f"\t{_number(trace.name_ms)}\t{_number(trace.connect_ms)}"
        f"\t{_number(trace.tls_ms)}\t{_number(trace.wait_ms)}\t{_number(trace.rest_ms)}"
        f"\t{_number(trace.total_ms)}\t{_text(trace.headers)}\t{_text(trace.body)}\n"
    )


def _number(value: float | None) -> str:
    return _NULL if value is None else f"{value:.6g}"


def _text(value: str | None) -> str:
    if value is None:
        return _NULL
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if not value.isprintable():
        value = value.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return value


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
