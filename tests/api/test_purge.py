"""``POST /documents/{id}/purge`` and ``python -m app purge``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import redis
from sqlalchemy import text

from app.domain.documents import DEFAULT_TENANT
from app.storage import rejected
from app.storage.engine import transaction
from app.storage.rejected import Rejection
from tests.api.routing_parts import Store
from tests.api.test_routes import create

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def store(database_url):
    made = Store(database_url)
    yield made
    made.engine.dispose()


def purge(web, document_id):
    return web.ask("POST", f"/documents/{document_id}/purge")


def test_a_purge_counts_what_it_removed_and_the_document_is_gone(web, store):
    create(web)
    document_id = store()
    answer = purge(web, document_id)
    assert (answer.status, answer.json) == (
        200,
        {"documents": 1, "deliveries": 1, "attempts": 0, "rejected": 0, "dead_letters": 0},
    )
    assert web.ask("GET", f"/documents/{document_id}").status == 404
    assert web.ask("GET", f"/deliveries?document_id={document_id}").json["items"] == []
    assert sum(purge(web, document_id).json.values()) == 0


def test_what_is_queued_at_that_moment_is_kept_out(web, store, redis_url):
    document_id = web.post({"content": "soon to be purged"}).json["id"]
    assert purge(web, document_id).status == 200
    with transaction(store.engine) as connection:
        kept_out_until = connection.execute(
            text("SELECT purged_seq FROM tombstones WHERE document_id = :id"), {"id": document_id}
        ).scalar_one()
    with redis.Redis.from_url(redis_url) as client:
        [body] = client.hvals("docyard:ingest.msgs")
    assert json.loads(body)["kwargs"]["seq"] <= kept_out_until


def test_an_emptied_redis_leaves_nothing_out(web, store):
    document_id = uuid.uuid4()
    rejection = Rejection(
        seq=time.time_ns() // 1000, document_id=document_id, reason="no", body=b"{}"
    )
    with transaction(store.engine) as connection:
        rejected.reject(connection, DEFAULT_TENANT, uuid.uuid4(), [rejection])
    # Redis has given no order number since the test emptied it.
    assert purge(web, document_id).json["rejected"] == 1


def test_without_redis_nothing_is_purged(serve, database_url, store, make_valkey):
    valkey = make_valkey()
    web = serve(database_url=database_url, redis_url=valkey.url)
    document_id = store()
    valkey.kill()
    answer = purge(web, document_id)
    assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
    assert web.ask("GET", f"/documents/{document_id}").status == 200


def test_the_command_says_what_it_removed(database_url, redis_url, store):
    document_id = store()
    done = subprocess.run(
        [sys.executable, "-m", "app", "purge", "--document", str(document_id)],
        cwd=PROJECT,
        env={**os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"Purged {document_id}: documents 1, deliveries 0" in done.stdout


def test_a_bad_id_is_a_problem(web):
    assert purge(web, "no-id").status == 422
    assert purge(web, uuid.uuid4()).status == 200
