"""No migration takes from the release before it what that release uses.

While a release is rolled out, and again when it is rolled back, the code of the release before
works on the newer schema. So what it reads stays, and what it writes is taken as before; what is no
longer used goes a release later (docs/architecture.md, "Two versions at once").
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, create_engine, text

from tests.storage.migrating import revisions, upgrade

EXCEPTIONS: dict[str, dict[str, str]] = {}
"""By revision what it takes away, each with the reason why the release before does not use it."""


@dataclass(frozen=True)
class Column:
    """What the code of a release takes for granted of a column."""

    type: str
    nullable: bool
    filled: bool
    """By itself, where an INSERT leaves it out."""


@dataclass(frozen=True)
class Shape:
    """A schema, as those see it who read and write rows.

    Attributes:
        columns: by table and name.
        unique: per table what no two rows may share; ``ON CONFLICT`` names it.
        checks: per table what else a row must hold.
    """

    columns: dict[str, dict[str, Column]]
    unique: set[tuple[str, str]]
    checks: set[tuple[str, str]]


OURS = "c.relnamespace = 'public'::regnamespace AND NOT c.relispartition"
COLUMNS = text(
    "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type,"  # noqa: S608  (constants only)
    " NOT a.attnotnull AS nullable, a.atthasdef OR a.attidentity <> '' AS filled"
    " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    f" WHERE {OURS} AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped"
)
# Without the names of indexes, which nobody asks for.
UNIQUE = text(
    "SELECT c.relname, regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING ', '')"  # noqa: S608  (likewise)
    " FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
    f" WHERE {OURS} AND i.indisunique"
)
CHECKS = text(
    "SELECT c.relname, pg_get_constraintdef(t.oid) FROM pg_constraint t"  # noqa: S608  (likewise)
    " JOIN pg_class c ON c.oid = t.conrelid"
    f" WHERE {OURS} AND t.contype IN ('c', 'f', 'x')"
)


def shape(connection: Connection) -> Shape:
    """Read the schema as it is."""
    columns: dict[str, dict[str, Column]] = {}
    for table, name, *facts in connection.execute(COLUMNS):
        columns.setdefault(table, {})[name] = Column(*facts)
    unique, checks = (set(map(tuple, connection.execute(one))) for one in (UNIQUE, CHECKS))
    return Shape(columns, unique, checks)


def taken_away(before: Shape, after: Shape) -> set[str]:
    """Return what code for one schema does not find in another, or cannot write there."""
    found = {f"{table} is gone" for table in before.columns.keys() - after.columns.keys()}
    kept = before.columns.keys() & after.columns.keys()
    for table in kept:
        found |= _of_columns(table, before.columns[table], after.columns[table])
    rules = {
        "is new": (after.unique - before.unique) | (after.checks - before.checks),
        # Without it ON CONFLICT is an error.
        "is gone": before.unique - after.unique,
    }
    for what, ones in rules.items():
        found |= {f"{table}: {rule} {what}" for table, rule in ones if table in kept}
    return found


def _of_columns(table: str, before: dict[str, Column], after: dict[str, Column]) -> set[str]:
    found = {f"{table}.{name} is gone" for name in before.keys() - after.keys()}
    found |= {
        f"{table}.{name} is new, and must be given"
        for name in after.keys() - before.keys()
        if not (after[name].nullable or after[name].filled)
    }
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if new.type != old.type:
            found.add(f"{table}.{name} was {old.type}, is {new.type}")
        if old.nullable and not new.nullable:
            found.add(f"{table}.{name} may not be NULL any more")
        if old.filled and not new.filled:
            found.add(f"{table}.{name} has no default any more")
    return found


@pytest.fixture
def connection(empty_database_url):
    engine = create_engine(empty_database_url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def test_every_migration_leaves_the_release_before_it_what_it_uses(connection):
    first, *later = revisions()
    upgrade(connection, first)
    before, found = shape(connection), {}
    for revision in later:
        upgrade(connection, revision)
        after = shape(connection)
        if taken := taken_away(before, after):
            found[revision] = taken
        before = after
    assert found == {revision: set(known) for revision, known in EXCEPTIONS.items()}


@pytest.fixture
def change(connection):
    """Change a little schema; returns what that takes away."""
    connection.execute(
        text(
            "CREATE TABLE things (id integer PRIMARY KEY, code text NOT NULL DEFAULT '' UNIQUE,"
            " note text)"
        )
    )

    def run(statement):
        before = shape(connection)
        connection.execute(text(statement))
        return taken_away(before, shape(connection))

    return run


@pytest.mark.parametrize(
    ("statement", "taken"),
    [
        ("DROP TABLE things", {"things is gone"}),
        ("ALTER TABLE things RENAME TO goods", {"things is gone"}),
        ("ALTER TABLE things DROP COLUMN note", {"things.note is gone"}),
        ("ALTER TABLE things RENAME note TO remark", {"things.note is gone"}),
        (
            "ALTER TABLE things ADD COLUMN size integer NOT NULL",
            {"things.size is new, and must be given"},
        ),
        ("ALTER TABLE things ALTER note SET NOT NULL", {"things.note may not be NULL any more"}),
        ("ALTER TABLE things ALTER code DROP DEFAULT", {"things.code has no default any more"}),
        ("ALTER TABLE things ALTER id TYPE bigint", {"things.id was integer, is bigint"}),
        ("CREATE UNIQUE INDEX one_note ON things (note)", {"things: btree (note) is new"}),
        (
            "ALTER TABLE things ADD CHECK (id > 0) NOT VALID",
            {"things: CHECK ((id > 0)) NOT VALID is new"},
        ),
        ("ALTER TABLE things DROP CONSTRAINT things_code_key", {"things: btree (code) is gone"}),
    ],
)
def test_what_the_release_before_would_miss_is_named(change, statement, taken):
    assert change(statement) == taken


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE others (id integer PRIMARY KEY, size integer NOT NULL UNIQUE CHECK (id > 0))",
        "ALTER TABLE things ADD COLUMN size integer",
        "ALTER TABLE things ADD COLUMN size integer NOT NULL DEFAULT 0",
        "ALTER TABLE things ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE things ALTER code DROP NOT NULL",
        "ALTER TABLE things ALTER note SET DEFAULT ''",
        "CREATE INDEX things_note ON things (note)",
        "ALTER INDEX things_code_key RENAME TO things_code",
    ],
)
def test_what_only_adds_or_loosens_is_fine(change, statement):
    assert change(statement) == set()
