"""A worker begins when the database has the schema that its code needs."""

from __future__ import annotations

import threading

import pytest

from app.storage.migrate import migrate
from tests.storage.migrating import make_one_behind
from worker.schema import wait_for_schema


@pytest.fixture
def waiting():
    """Wait on a thread; ``answers`` has what came of it."""
    stopping, answers, threads = threading.Event(), [], []

    def wait(url):
        threads.append(
            threading.Thread(target=lambda: answers.append(wait_for_schema(url, stopping)))
        )
        threads[-1].start()
        return threads[-1]

    wait.stopping, wait.answers = stopping, answers
    yield wait
    stopping.set()
    for thread in threads:
        thread.join(10)


def test_it_waits_for_the_migration(empty_database_url, waiting, capsys):
    before = make_one_behind(empty_database_url)
    thread = waiting(empty_database_url)
    thread.join(1.2)
    assert thread.is_alive()
    needed = migrate(empty_database_url)
    thread.join(10)
    assert waiting.answers == [True]
    [said] = [line for line in capsys.readouterr().out.splitlines() if "worker.waits" in line]
    assert before in said
    assert needed in said


def test_it_does_not_wait_for_a_schema_that_is_there(database_url, waiting):
    waiting(database_url).join(10)
    assert waiting.answers == [True]


def test_it_waits_for_postgres(make_postgres, waiting):
    server = make_postgres()
    migrate(server.url)
    server.kill()
    thread = waiting(server.url)
    thread.join(0.7)
    assert thread.is_alive()
    server.start()
    thread.join(10)
    assert waiting.answers == [True]


def test_told_to_stop_it_waits_no_longer(empty_database_url, waiting):
    thread = waiting(empty_database_url)
    thread.join(0.2)
    assert thread.is_alive()
    waiting.stopping.set()
    thread.join(10)
    assert waiting.answers == [False]
