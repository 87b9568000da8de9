"""A name that comes to lead to another Postgres, while the old one stays and takes no writes."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

from app.domain.errors import DatabaseUnavailable
from app.storage.engine import driver_of, make_engine, transaction
from tests.acceptance.conftest import until


@pytest.mark.parametrize("past_sqlalchemy", [False, True])
def test_a_primary_that_was_demoted_is_left_after_its_first_refusal(
    make_postgres, tmp_path, past_sqlalchemy
):
    old, new = make_postgres(), make_postgres()
    for server in (old, new):
        url = server.url.replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE seen (n int)")
            if server is old:
                connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    name = tmp_path / "name"
    name.symlink_to(old.server.sockets)
    engine = make_engine(f"postgresql://app@/postgres?host={name}", application_name="t")

    def write():
        with transaction(engine) as connection:
            if past_sqlalchemy:
                with driver_of(connection) as driver:
                    driver.execute("INSERT INTO seen VALUES (1)")
            else:
                connection.execute(text("INSERT INTO seen VALUES (1)"))

    write()
    with psycopg.connect(old.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")
    name.unlink()
    name.symlink_to(new.server.sockets)
    refused = 0
    with psycopg.connect(new.url.replace("+psycopg", ""), autocommit=True) as connection:

        def arrived():
            nonlocal refused
            try:
                write()
            except DatabaseUnavailable:
                refused += 1
            return connection.execute("SELECT count(*) FROM seen").fetchone()[0]

        # Until the reload has reached its session, the old one takes what comes.
        assert until(arrived)
    assert refused == 1
    engine.dispose()
