"""Encrypts everything anew under the first key, so that the keys behind it can go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, Row

from app.domain.errors import EncryptionKeyMissing, Undecryptable
from app.domain.vault import Vault
from app.storage import sealed
from app.storage.engine import transaction
from app.storage.sealed import TABLES, Place, SealedTable


@dataclass(slots=True)
class Reencrypted:
    """What came of it.

    Attributes:
        rewritten: rows that are now under the first key, and were not.
        unchanged: rows that were before.
        unreadable: rows that no key opens, by table and name; they stay as they are.
    """

    rewritten: int = 0
    unchanged: int = 0
    unreadable: list[str] = field(default_factory=list)


def reencrypt(engine: Engine, vault: Vault) -> Reencrypted:
    """Encrypt everything under the first key, also what was plain.

    Runs beside everything else, in small transactions, and again without harm. What is created
    meanwhile is under the first key of the process that creates it.

    Raises:
        EncryptionKeyMissing: there is no key.
    """
    if not vault:
        raise EncryptionKeyMissing("")
    result = Reencrypted()
    for table in TABLES:
        place: Place | None = None
        while place := _some(engine, vault, table, place, result):
            pass
    return result


def _some(
    engine: Engine, vault: Vault, table: SealedTable, place: Place | None, result: Reencrypted
) -> Place | None:
    """Go through some rows behind a place; return the last, None at the end."""
    some = Reencrypted()
    with transaction(engine) as connection:
        rows: list[Row[Any]] = sealed.rows_after(connection, table, place)
        for row in rows:
            try:
                is_new = sealed.rewrite(connection, table, row, vault.resealed)
            except Undecryptable:
                some.unreadable.append(f"{table.name} {row._asdict()[table.label]} ({row.id})")
            else:
                some.rewritten += is_new
                some.unchanged += not is_new
    # Counted once it is committed.
    result.rewritten += some.rewritten
    result.unchanged += some.unchanged
    result.unreadable += some.unreadable
    return Place(rows[-1].tenant_id, rows[-1].id) if rows else None
