"""The columns that hold what is stored encrypted, to encrypt them anew a few rows at a time."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Row, text

ROWS = 100
"""In one transaction: short, because a destination cannot be changed meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedTable:
    """A table with encrypted columns.

    Attributes:
        name: of the table; its key is ``tenant_id, id``.
        label: the column that a person knows a row by.
        columns: that hold one value, or NULL.
        lists: that hold a JSON array of objects with a ``secret``.
    """

    name: str
    label: str
    columns: tuple[str, ...]
    lists: tuple[str, ...] = ()


TABLES = (
    SealedTable(
        name="destinations",
        label="key",
        columns=("secret", "sealed_headers", "sealed_auth"),
        lists=("old_secrets",),
    ),
    SealedTable(name="webhook_keys", label="public_key", columns=("secret_key",)),
)


class Place(NamedTuple):
    """A row's key."""

    tenant_id: int
    id: uuid.UUID


def rows_after(connection: Connection, table: SealedTable, place: Place | None) -> list[Row[Any]]:
    """Return and lock some rows behind a place; deleted destinations are among them."""
    names = ", ".join((table.label, *table.columns, *table.lists))
    return list(
        connection.execute(
            text(
                f"SELECT tenant_id, id, {names} FROM {table.name}"  # noqa: S608  (constants only)
                " WHERE CAST(:tenant_id AS integer) IS NULL"
                "  OR (tenant_id, id) > (:tenant_id, CAST(:id AS uuid))"
                " ORDER BY tenant_id, id LIMIT :rows FOR NO KEY UPDATE"
            ),
            {
                "tenant_id": place.tenant_id if place else None,
                "id": place.id if place else None,
                "rows": ROWS,
            },
        )
    )


def rewrite(
    connection: Connection, table: SealedTable, row: Row[Any], resealed: Callable[[str], str]
) -> bool:
    """Write a row's values as ``resealed`` returns them; False when none is another."""
    before = row._asdict()
    after: dict[str, Any] = {
        name: None if before[name] is None else resealed(before[name]) for name in table.columns
    }
    for name in table.lists:
        after[name] = [{**one, "secret": resealed(one["secret"])} for one in before[name]]
    if all(after[name] == before[name] for name in after):
        return False
    values = {**after, **{name: orjson.dumps(after[name]).decode() for name in table.lists}}
    assignments = ", ".join(
        f"{name} = {f'CAST(:{name} AS jsonb)' if name in table.lists else f':{name}'}"
        for name in after
    )
    connection.execute(
        text(
            f"UPDATE {table.name} SET {assignments}"  # noqa: S608  (constants only)
            " WHERE tenant_id = :tenant_id AND id = :id"
        ),
        {**values, "tenant_id": row.tenant_id, "id": row.id},
    )
    return True
