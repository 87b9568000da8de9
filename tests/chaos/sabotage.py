"""Postgres and Redis that answer, and refuse to write."""

from __future__ import annotations

import psycopg
import redis
from psycopg import sql

DISK_FULL = "chaos.disk_full"

_TRIGGER = """
CREATE FUNCTION chaos_disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('chaos.disk_full', true) = 'on' THEN
        RAISE EXCEPTION 'could not extend file: No space left on device'
            USING ERRCODE = '53100';
    END IF;
    RETURN NULL;
END $$
"""
_TABLES = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
AND c.relname <> 'alembic_version'
"""


def prepare(connection: psycopg.Connection) -> None:
    """Give each table a trigger that can be made to refuse every write (SQLSTATE 53100)."""
    connection.execute(_TRIGGER)
    for (table,) in connection.execute(_TABLES).fetchall():
        connection.execute(
            sql.SQL(
                "CREATE TRIGGER chaos_disk_full BEFORE INSERT OR UPDATE OR DELETE ON {}"
                " FOR EACH STATEMENT EXECUTE FUNCTION chaos_disk_full()"
            ).format(sql.Identifier(table))
        )


def set_everywhere(connection: psycopg.Connection, setting: str, value: str | None) -> None:
    """Change a setting of all sessions, those that stand included; None as it was before."""
    name = sql.SQL(setting)
    if value is None:
        connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(name))
    else:
        connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(name, sql.Literal(value)))
    connection.execute("SELECT pg_reload_conf()")


def fill(client: redis.Redis, *, full: bool) -> None:
    """Leave Redis no memory for a write, or as much as it likes."""
    # Not so little that single appends look as if they could never fit.
    used = client.info("memory")["used_memory"]
    client.config_set("maxmemory", used // 2 if full else 0)
