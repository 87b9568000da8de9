"""Commands for operators work on what `up` runs, unless the environment names something else."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from cryptography.fernet import Fernet

from app.cli.installation import settings_of_installation
from app.local.folder import KEY_FILE
from app.local.instance import Instance, note_instance
from app.local.processes import start_stamp

PRIVATE = Instance(
    address="http://127.0.0.1:8000",
    database="postgresql+psycopg://app@/postgres?host=/private",
    queue="unix:///private/valkey.sock",
    pid=os.getpid(),
    stamp=start_stamp(os.getpid()),
)
SOMEWHERE_ELSE = "postgresql+psycopg://elsewhere/docyard"


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in ("DATABASE_URL", "REDIS_URL", "REDIS_TLS_URL", "ENCRYPTION_KEYS"):
        monkeypatch.delenv(name, raising=False)


def test_the_private_servers_and_their_key_are_taken(folder):
    note_instance(folder, PRIVATE)
    settings = settings_of_installation()
    assert (settings.database_url, settings.queue_url) == (PRIVATE.database, PRIVATE.queue)
    assert settings.encryption_keys == ((folder.path / KEY_FILE).read_text().strip(),)


def test_what_the_environment_names_goes_first(folder, monkeypatch):
    note_instance(folder, PRIVATE)
    monkeypatch.setenv("DATABASE_URL", SOMEWHERE_ELSE)
    monkeypatch.setenv("REDIS_TLS_URL", "rediss://elsewhere:6380")
    settings = settings_of_installation()
    assert settings.database_url == SOMEWHERE_ELSE
    assert settings.queue_url.startswith("rediss://elsewhere")


def test_another_database_gets_neither_the_private_queue_nor_the_private_key(folder, monkeypatch):
    note_instance(folder, PRIVATE)
    monkeypatch.setenv("DATABASE_URL", SOMEWHERE_ELSE)
    settings = settings_of_installation()
    assert settings.database_url == SOMEWHERE_ELSE
    assert "/private" not in settings.queue_url
    assert settings.encryption_keys == ()


def test_the_private_database_may_be_named(folder, monkeypatch):
    note_instance(folder, PRIVATE)
    monkeypatch.setenv("DATABASE_URL", PRIVATE.database)
    settings = settings_of_installation()
    assert settings.queue_url == PRIVATE.queue
    assert settings.encryption_keys == (folder.encryption_key(),)


def test_the_keys_of_the_user_go_before_that_of_the_folder(folder, monkeypatch):
    note_instance(folder, PRIVATE)
    given = Fernet.generate_key().decode()
    monkeypatch.setenv("ENCRYPTION_KEYS", given)
    assert settings_of_installation().encryption_keys == (given, folder.encryption_key())


def test_where_nothing_runs_it_is_the_environment_alone(folder):
    note_instance(folder, replace(PRIVATE, stamp="another process"))
    assert "/private" not in settings_of_installation().database_url
    assert not (folder.path / KEY_FILE).exists()
