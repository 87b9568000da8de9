"""Generated rows: millions of documents and deliveries, made inside Postgres.

Ids are UUIDv7 as the service makes them: they rise with time, their end is random. Contents are cut
from prepared texts and all differ. What was made lies as it would after a while of running: in the
order of acceptance, vacuumed and analysed.
"""

from __future__ import annotations

import uuid

import psycopg

from bench import texts

WORDS = 30
TEXTS = 4_096
MICROSECONDS_APART = 1_000
FIRST_SEQ = 1_600_000_000_000_000
"""2020: generated rows are older than whatever is measured on them."""

# 48 bits of milliseconds, version 7, the rest random (RFC 9562): a random UUID with its beginning
# replaced.
_UUID7 = """encode(set_byte(overlay(uuid_send(gen_random_uuid())
    placing substring(int8send({ms}) from 3) from 1 for 6), 6, 112 + (random() * 15)::int),
    'hex')::uuid"""

_DOCUMENTS = f"""
INSERT INTO documents (tenant_id, id, version, seq, content, category, confidence, model_version,
    created_at, updated_at)
SELECT 1, {_UUID7.format(ms="(seq / 1000)::bigint")}, 0, seq,
    'document ' || n || ' ' || t.content, 'sci.space', 0.9, 'generated',
    to_timestamp(seq / 1e6), to_timestamp(seq / 1e6)
FROM (SELECT n, %(first)s + n * {MICROSECONDS_APART} AS seq
    FROM generate_series(%(from)s::bigint, %(to)s::bigint) n) numbered
JOIN bench_texts t ON t.number = n %% {TEXTS}
"""  # noqa: S608  (constants only)

_DELIVERIES = """
INSERT INTO deliveries (tenant_id, document_id, seq, version, destination_id, state, reason,
    attempts, due_at, created_at, ended_at)
SELECT 1, id, seq, version, %(destination)s, %(state)s, 'broadcast', %(attempts)s,
    CASE WHEN %(parked)s THEN now() + interval '1 day' ELSE created_at END, created_at,
    CASE WHEN %(state)s = 'pending' THEN NULL ELSE created_at END
FROM documents WHERE tenant_id = 1 ORDER BY id LIMIT %(count)s
"""

_TRACES = {
    "INSERT INTO tombstones (tenant_id, document_id, version, seq)"
    " SELECT 1, gen_random_uuid(), 0, n FROM generate_series(1, %(count)s::bigint) n": 1,
    "INSERT INTO receipts (tenant_id, chunk_id, tries, applied_at, stored)"
    " SELECT 1, gen_random_uuid(), 1, now(), 100 FROM generate_series(1, %(count)s::bigint)": 10,
    "INSERT INTO counters (tenant_id, name, destination_id, hour, amount)"
    " SELECT 1, 'deliveries.delivered', gen_random_uuid(), now(), 10"
    " FROM generate_series(1, %(count)s::bigint)": 10,
    "INSERT INTO rejected_documents (tenant_id, seq, document_id, chunk_id, reason, body)"
    " SELECT 1, n, gen_random_uuid(), gen_random_uuid(), 'generated', '{}'"
    " FROM generate_series(1, %(count)s::bigint) n": 10,
    "INSERT INTO batch_counts (tenant_id, batch_id, name, amount)"
    " SELECT 1, gen_random_uuid(), 'stored', 10 FROM generate_series(1, %(count)s::bigint)": 10,
}
"""Statements, and of how many documents each makes one row."""

PIECE = 250_000


def make_documents(database_url: str, count: int) -> None:
    """Add documents of about 30 words."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE bench_texts (number int PRIMARY KEY, content text)")
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO bench_texts VALUES (%s, %s)",
                list(enumerate(texts.take(TEXTS, WORDS))),
            )
        for start in range(0, count, PIECE):
            bounds = {"first": FIRST_SEQ, "from": start, "to": min(start + PIECE, count) - 1}
            connection.execute(_DOCUMENTS, bounds)
        connection.execute("DROP TABLE bench_texts")


def make_deliveries(
    database_url: str,
    destination_id: uuid.UUID,
    count: int,
    *,
    state: str = "pending",
    attempts: int = 0,
    parked: bool = False,
) -> None:
    """Add a delivery of each of the oldest documents to one destination.

    Args:
        database_url: where.
        destination_id: whose.
        count: how many.
        state: of all of them.
        attempts: made so far.
        parked: due tomorrow instead of since long.
    """
    values = {
        "destination": destination_id,
        "count": count,
        "state": state,
        "attempts": attempts,
        "parked": parked,
    }
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_DELIVERIES, values)


def make_traces(database_url: str, count: int) -> None:
    """Add what so many documents leave behind: receipts, counters, tombstones, rejected ones."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for statement, share in _TRACES.items():
            connection.execute(statement, {"count": count // share})


def tidy(database_url: str) -> None:
    """Vacuum and analyse everything, as autovacuum would."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")
