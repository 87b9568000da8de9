"""What is logged: never what a document says."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sqlalchemy.exc import DBAPIError

from app.storage.engine import fetch, make_engine, transaction

SECRET = "nobody should read this"  # noqa: S105  (no password)


FAIL = f"""
import logging
import dramatiq
from app.logs import configure_logging
from app.settings import load_settings

configure_logging(load_settings())
message = dramatiq.Message(
    queue_name="ingest", actor_name="ingest", args=("{SECRET}",), kwargs={{}}, options={{}}
)
logging.getLogger("dramatiq.worker.WorkerThread").error("Failed to process message %s", message)
print(message.message_id)
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_message_that_fails_is_named_by_its_id(log_format):
    ran = subprocess.run(
        [sys.executable, "-c", FAIL],
        env={**os.environ, "LOG_FORMAT": log_format},
        capture_output=True,
        text=True,
        check=True,
    )
    assert SECRET not in ran.stderr
    assert f"Failed to process message ingest {ran.stdout.strip()}" in ran.stderr


def test_an_error_of_the_database_does_not_show_what_was_written(database_url):
    engine = make_engine(database_url, application_name="test")
    for run in (
        lambda connection: connection.exec_driver_sql("SELECT %s / 0, %s", (1, SECRET)),
        lambda connection: fetch(connection, "SELECT 1 / 0, %(a)s", {"a": SECRET}),
    ):
        with pytest.raises(DBAPIError) as failure, transaction(engine) as connection:
            run(connection)
        assert SECRET not in str(failure.value)
    engine.dispose()
