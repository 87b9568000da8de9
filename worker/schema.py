"""A version that runs before its migration waits for it, and takes nothing off the queue meanwhile.

On the schema of the version before, its statements would fail, and the chunks with them, until they
are dead letters. Or worse, would not fail: what a migration adds up of the rows that it finds must
not have been counted by the new code already.
"""

from __future__ import annotations

import threading

import structlog

from app.domain.errors import DatabaseUnavailable
from app.storage.engine import make_engine, transaction
from app.storage.revisions import require_schema

LOG = structlog.get_logger(__name__)
LOOK_EVERY_SECONDS = 0.5


def wait_for_schema(database_url: str, stopping: threading.Event) -> bool:
    """Return once the database has the schema that this code needs, or a newer one.

    Args:
        database_url: asked twice a second; while it is away nobody knows.
        stopping: ends the wait.

    Returns:
        False when it was told to stop first.
    """
    engine = make_engine(database_url, application_name="docyard-worker", pool_size=1)
    told = ""
    try:
        while not stopping.is_set():
            try:
                with transaction(engine) as connection:
                    require_schema(connection)
            except DatabaseUnavailable as error:
                if str(error) != told:
                    told = str(error)
                    LOG.warning("worker.waits", reason=told)
                stopping.wait(LOOK_EVERY_SECONDS)
            else:
                return True
    finally:
        engine.dispose()
    return False
