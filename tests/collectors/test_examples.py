"""The examples do what they say, deliveries that come twice included."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import orjson
import psycopg
import pytest

from app.collectors import Error, Ok, Payload
from app.domain.payloads import CollectedDocument
from app.domain.predictions import Prediction
from examples.collectors import ndjson_files, postgres_table
from examples.collectors.ndjson_files import Archive
from tests.delivery.conftest import wait_until


def line(number: int, seq: int = 1) -> bytes:
    return orjson.dumps({"id": f"{number:04}", "seq": seq}, option=orjson.OPT_APPEND_NEWLINE)


def lines(folder: Path) -> list[dict]:
    files = sorted(folder.glob("*.ndjson"))
    return [orjson.loads(one) for file in files for one in file.read_bytes().splitlines()]


def test_a_line_is_written_once_whichever_process_writes_it(tmp_path):
    first, second = Archive(tmp_path), Archive(tmp_path)
    assert first.append([line(1), line(2), line(1)]) == 2
    assert second.append([line(2), line(3)]) == 1
    assert first.append([line(3), line(3, seq=2)]) == 1
    assert Archive(tmp_path).append([line(1), line(2), line(3)]) == 0
    assert [(one["id"], one["seq"]) for one in lines(tmp_path)] == [
        ("0001", 1),
        ("0002", 1),
        ("0003", 1),
        ("0003", 2),
    ]


def test_a_line_that_a_crash_has_cut_off_is_removed_and_written_anew(tmp_path):
    assert Archive(tmp_path).append([line(1)]) == 1
    (file,) = tmp_path.glob("*.ndjson")
    with file.open("ab") as target:
        target.write(line(2)[:7])
    assert Archive(tmp_path).append([line(2)]) == 1
    assert [one["id"] for one in lines(tmp_path)] == ["0001", "0002"]


def test_files_are_rotated_and_lines_of_the_last_ones_are_known(tmp_path):
    archive = Archive(tmp_path, max_bytes=3 * len(line(1)))
    assert [archive.append([line(number)]) for number in range(7)] == [1] * 7
    assert len(list(tmp_path.glob("*.ndjson"))) == 3
    assert Archive(tmp_path).append([line(number) for number in range(8)]) == 1


def test_documents_are_archived_once_though_delivered_twice(
    make_carrier, desk, tmp_path, monkeypatch
):
    monkeypatch.setenv("ARCHIVE_FOLDER", str(tmp_path))
    carrier = make_carrier(ndjson_files.archive)
    stored = [desk.store(carrier, "ndjson-files", f'{{"n": {n}}}') for n in range(5)]
    for one in stored:
        assert desk.ended(one).state == "delivered"
    desk.rows.execute("UPDATE deliveries SET state = 'pending', ended_at = NULL, attempts = 0")
    carrier.rung.set()
    wait_until(lambda: desk.rows.states() == {"delivered": 5})
    found = lines(tmp_path)
    assert sorted(one["id"] for one in found) == sorted(str(one.id) for one in stored)
    assert sorted(one["value"]["n"] for one in found) == [0, 1, 2, 3, 4]
    assert {one["category"] for one in found} == {"sci.space"}


@pytest.fixture
def search_url(postgres_url):
    """Another database."""
    url = postgres_url.replace("postgresql+psycopg://", "postgresql://")
    name = f"search_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield psycopg.conninfo.make_conninfo(url, dbname=name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def payload(number: int, *, version: int, seq: int, value: object) -> Payload:
    now = datetime.now(UTC)
    return Payload(
        value=value,
        delivery="broadcast",
        keys=[],
        topics=[],
        priority=1000,
        prediction=Prediction("sci.space", 0.9, "m1"),
        document=CollectedDocument(
            id=uuid.UUID(int=number),
            version=version,
            seq=seq,
            content="",
            attributes=None,
            created_at=now,
            updated_at=now,
        ),
        attempt=1,
    )


def test_the_newest_version_of_a_document_is_in_the_table(
    make_carrier, desk, search_url, monkeypatch
):
    monkeypatch.setenv("SEARCH_DATABASE_URL", search_url)
    carrier = make_carrier(postgres_table.keep)
    one = desk.store(carrier, "postgres-table", '{"title": "one"}')
    assert desk.ended(one).value == {"written": True}
    desk.rows.execute("UPDATE deliveries SET state = 'pending', ended_at = NULL, attempts = 0")
    desk.rows.execute("DELETE FROM delivery_results")
    carrier.rung.set()
    assert desk.ended(one).value == {"written": False}

    async def two_versions() -> list[object]:
        ctx = postgres_table.TableContext()
        async with postgres_table.open_table(ctx):
            newer = await postgres_table.keep(payload(1, version=2, seq=1, value="b"), ctx)
            older = await postgres_table.keep(payload(1, version=1, seq=9, value="a"), ctx)
            await ctx.table.close()  # as if the server had
            again = await postgres_table.keep(payload(1, version=2, seq=3, value="c"), ctx)
        return [newer, older, again]

    written = asyncio.run(two_versions())
    assert written == [Ok({"written": True}), Ok({"written": False}), Ok({"written": True})]
    with psycopg.connect(search_url) as connection:
        rows = connection.execute("SELECT version, seq, body FROM articles ORDER BY id").fetchall()
    assert rows[0] == (2, 3, "c")
    assert rows[1][2] == {"title": "one"}


def test_a_database_that_is_away_is_asked_again_later():
    ctx = SimpleNamespace(table=postgres_table.Table("postgresql:///?host=/nowhere"))
    answer = asyncio.run(postgres_table.keep(payload(1, version=1, seq=1, value="a"), ctx))
    assert isinstance(answer, Error)
    assert (answer.retry_after, answer.permanent) == (10, False)
