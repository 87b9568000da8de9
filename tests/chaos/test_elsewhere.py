"""A run against an installation that somebody else has started, and harms."""

from __future__ import annotations

import os
import signal
import threading

import psycopg
import pytest

from tests.acceptance.conftest import children, until
from tests.acceptance.conftest import make_system as make_system  # noqa: PLC0414  (a fixture)
from tests.chaos.elsewhere import Examination, Installation, run_against
from tests.chaos.ledger import Outcome

SEED = 7


@pytest.fixture
def system(make_system, database_url, redis_url):
    made = make_system(
        database_url, redis_url, DESTINATION_ALLOW_CIDRS="127.0.0.0/8", ADMIN_API_KEY="opensesame"
    )
    made.start_web()
    return made


@pytest.fixture
def installation(system):
    return Installation(address=system.url, api_key="opensesame", patience_seconds=60)


def rows(database_url, statement):
    conninfo = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return connection.execute(statement).fetchall()


def test_plugs_that_somebody_pulls_lose_nothing_and_nothing_is_left(
    system, installation, database_url
):
    worker = system.start("worker")
    assert until(lambda: len(children(worker.pid)) == 2, 60), system.logs()

    def pull():
        until(lambda: rows(database_url, "SELECT count(*) FROM documents")[0][0] > 50)
        for child in children(worker.pid):
            os.kill(child, signal.SIGKILL)

    pulling = threading.Thread(target=pull)
    pulling.start()
    result = run_against(installation, SEED, 4, print)
    pulling.join()
    assert result.faults == []
    assert result.facts["accepted"] > 100
    assert set(result.facts["deliveries"]) <= {"delivered", "superseded", "cancelled"}
    assert rows(database_url, "SELECT 1 FROM documents") == []
    assert (
        system.ask("GET", "/destinations", None, Authorization="Bearer opensesame")[1]["items"]
        == []
    )


def test_what_was_lost_is_named(system, installation, database_url):
    system.start("worker")
    with Examination(installation, SEED, print) as examination:
        examination.load(1)
        assert examination.wait() == []
        assert examination.examine() == []
        accepted = examination.ledger.count(Outcome.ACCEPTED)
        assert accepted
        [(lost,)] = rows(
            database_url,
            "DELETE FROM documents WHERE id = (SELECT min(id::text)::uuid FROM documents)"
            " RETURNING id::text",
        )
        [(changed,)] = rows(
            database_url,
            "UPDATE documents SET version = version + 1"
            " WHERE id = (SELECT max(id::text)::uuid FROM documents) RETURNING id::text",
        )
        rows(
            database_url,
            "UPDATE deliveries SET state = 'failed' WHERE ctid IN"
            " (SELECT ctid FROM deliveries WHERE state = 'delivered' LIMIT 1) RETURNING 1",
        )
        found = "\n".join(examination.examine())
    assert f"{lost}: " in found
    assert "nothing is stored" in found
    assert f"{changed}: " in found
    assert "given up for" in found


def test_an_installation_that_is_not_there_is_a_sentence():
    installation = Installation(address="http://127.0.0.1:9", patience_seconds=1)
    result = run_against(installation, SEED, 1, print)
    assert ["127.0.0.1:9" in one and "Traceback" not in one for one in result.faults] == [True]
