"""Migrations, connections and what bounds them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from urllib.parse import quote

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError
from sqlmodel import SQLModel

from app.domain.errors import DatabaseUnavailable, SchemaBehind
from app.storage import migrate
from app.storage.engine import make_engine, sqlalchemy_url, transaction
from app.storage.revisions import MIGRATIONS, current_revision, needed_revision
from tests.storage.migrating import make_one_behind


def test_the_migrations_make_what_the_tables_say(database_url):
    engine = make_engine(database_url, application_name="test")
    assert migrate.differences(engine) == []
    engine.dispose()


@pytest.fixture
def poor_url(empty_database_url):
    """The database for a role that may connect to it and nothing else."""
    engine = make_engine(empty_database_url, application_name="test")
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE poor LOGIN"))
    yield str(make_url(empty_database_url).set(username="poor"))
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE poor"))
    engine.dispose()


def test_a_right_that_is_missing_is_a_sentence_and_waited_for(empty_database_url, poor_url):
    with pytest.raises(DatabaseUnavailable, match="no schema has been selected"):
        migrate.migrate(poor_url)
    engine = make_engine(empty_database_url, application_name="test")
    with engine.begin() as connection:
        # From here on as in a new database of Postgres 15 and later.
        connection.execute(text("GRANT USAGE ON SCHEMA public TO PUBLIC"))
    engine.dispose()
    with pytest.raises(DatabaseUnavailable, match="permission denied for schema public"):
        migrate.migrate(poor_url)
    migrate.migrate(empty_database_url)
    with pytest.raises(DatabaseUnavailable, match="permission denied for table alembic_version"):
        migrate.migrate(poor_url)
    engine = make_engine(poor_url, application_name="test")
    with (
        pytest.raises(DatabaseUnavailable, match="permission denied for table documents"),
        transaction(engine) as connection,
    ):
        connection.execute(text("SELECT 1 FROM documents"))
    engine.dispose()


def test_a_table_that_nobody_lets_go_is_a_sentence(empty_database_url, monkeypatch):
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.1)
    monkeypatch.setattr(migrate, "PATIENCE_SECONDS", 0.0)
    make_one_behind(empty_database_url)
    engine = make_engine(empty_database_url, application_name="test")
    with engine.begin() as dump:
        dump.execute(text("LOCK TABLE alembic_version IN SHARE MODE"))
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            migrate.migrate(empty_database_url)
    engine.dispose()


def test_what_only_the_version_before_uses_may_stay(database_url, monkeypatch):
    engine = make_engine(database_url, application_name="test")
    with transaction(engine) as connection:
        connection.execute(text("ALTER TABLE documents ADD COLUMN shade text"))
        connection.execute(text("CREATE TABLE shades (id integer PRIMARY KEY)"))
    assert len(migrate.differences(engine)) == 2
    monkeypatch.setattr(migrate, "LEFT_BEHIND", {"documents.shade", "shades"})
    assert migrate.differences(engine) == []
    engine.dispose()


def test_migrating_again_changes_nothing(database_url):
    assert migrate.migrate(database_url) == needed_revision()


def test_a_database_of_a_newer_version_is_left_alone(database_url):
    engine = make_engine(database_url, application_name="test")
    with transaction(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert migrate.migrate(database_url) == "9999"
    with transaction(engine) as connection:
        assert current_revision(connection) == "9999"
    engine.dispose()


def _somebody_waits(engine):
    with engine.begin() as connection:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        return connection.execute(text(waiting)).scalar_one() > 0


def test_a_migration_that_must_wait_keeps_nobody_waiting(empty_database_url, monkeypatch):
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 0.3)
    monkeypatch.setattr(migrate, "PAUSE_SECONDS", 0.1)
    make_one_behind(empty_database_url)
    engine = make_engine(empty_database_url, application_name="test")
    tables = text(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
    )
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as dump:
            # Of all that a migration locks, this one comes last.
            dump.execute(text("LOCK TABLE alembic_version IN SHARE MODE"))
            migrating = pool.submit(migrate.migrate, empty_database_url)
            while not _somebody_waits(engine):
                assert not wait([migrating], 0.02).done
            with transaction(engine) as connection:
                connection.execute(text("SET LOCAL lock_timeout = '20s'"))
                for name in connection.execute(tables).scalars().all():
                    connection.execute(text(f"LOCK TABLE {name} IN ROW EXCLUSIVE MODE"))
            assert not migrating.done()
        assert migrating.result(20) == needed_revision()
    engine.dispose()


def test_a_migration_that_freezes_lets_go_of_the_tables(empty_database_url, monkeypatch):
    monkeypatch.setattr(migrate, "FROZEN_SECONDS", 0.3)
    before = make_one_behind(empty_database_url)
    upgrade, frozen, thawed = migrate.command.upgrade, threading.Event(), threading.Event()

    def freeze(*arguments):
        upgrade(*arguments)
        frozen.set()
        assert thawed.wait(20)

    monkeypatch.setattr(migrate.command, "upgrade", freeze)
    engine = make_engine(empty_database_url, application_name="test")
    with ThreadPoolExecutor(1) as pool:
        migrating = pool.submit(migrate.migrate, empty_database_url)
        # A machine that stood still may have frozen it before.
        migrating.add_done_callback(lambda _: frozen.set())
        try:
            assert frozen.wait(20)
            with transaction(engine) as connection:
                connection.execute(text("LOCK TABLE alembic_version IN SHARE MODE"))
                assert current_revision(connection) == before
        finally:
            thawed.set()
        with pytest.raises(DatabaseUnavailable, match="idle-in-transaction"):
            migrating.result(20)
    engine.dispose()


@pytest.mark.parametrize("wanted", ["SELECT FROM no_such_table", "SELECT no_such FROM documents"])
def test_what_is_not_there_is_waited_for_only_before_the_migration(database_url, wanted):
    engine = make_engine(database_url, application_name="test")
    with pytest.raises(ProgrammingError), transaction(engine) as connection:
        connection.execute(text(wanted))
    with transaction(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(SchemaBehind, match="0001"), transaction(engine) as connection:
        connection.execute(text(wanted))
    engine.dispose()


def test_the_revisions_of_code_and_database_are_what_alembic_says(database_url, postgres_url):
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert needed_revision() == scripts.get_current_head()
    for url, expected in ((database_url, needed_revision()), (postgres_url, None)):
        engine = make_engine(url, application_name="test")
        with transaction(engine) as connection:
            assert current_revision(connection) == expected
        engine.dispose()


def test_revisions_sort_as_they_follow_each_other():
    scripts = ScriptDirectory(str(MIGRATIONS))
    order = [script.revision for script in scripts.walk_revisions()]
    assert order == sorted(order, reverse=True)


def test_every_table_has_the_tenant_first_in_its_key():
    for table in SQLModel.metadata.sorted_tables:
        assert next(iter(table.primary_key.columns)).name == "tenant_id"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_urls_of_every_platform_name_the_driver(scheme):
    url = sqlalchemy_url(f"{scheme}://u:p@h/d")
    assert url.render_as_string(hide_password=False) == "postgresql+psycopg://u:p@h/d"


def test_a_folder_of_sockets_may_stand_where_the_host_does(database_url):
    folder = make_url(database_url).query["host"]
    assert isinstance(folder, str)
    assert folder.startswith("/")
    url = make_url(database_url).set(query={}, host="FOLDER").render_as_string(hide_password=False)
    engine = make_engine(url.replace("FOLDER", quote(folder, safe="")), application_name="test")
    with transaction(engine) as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()


def test_a_transaction_has_bounded_waits_and_says_whether_it_is_durable(database_url):
    engine = make_engine(database_url, application_name="test")
    show = text(
        "SELECT current_setting('idle_in_transaction_session_timeout'),"
        " current_setting('lock_timeout'), current_setting('statement_timeout'),"
        " current_setting('synchronous_commit'), current_setting('transaction_isolation')"
    )
    with transaction(engine, durable=False) as connection:
        assert tuple(connection.execute(show).one()) == (
            "10s",
            "10s",
            "30s",
            "off",
            "read committed",
        )
    engine.dispose()


def test_postgres_away_is_a_sentence_and_it_comes_back(make_postgres):
    server = make_postgres()
    engine = make_engine(server.url, application_name="test")
    with transaction(engine) as connection:
        connection.execute(text("SELECT 1"))
    server.kill()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable), transaction(engine) as connection:
            connection.execute(text("SELECT 1"))
    server.start()
    with transaction(engine) as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()
