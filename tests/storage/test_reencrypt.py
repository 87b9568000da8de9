"""``python -m app reencrypt``: everything under the first key, beside everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from app.domain.destinations import DestinationInput
from app.domain.documents import DEFAULT_TENANT
from app.domain.encryption import new_key
from app.domain.errors import EncryptionKeyMissing, Undecryptable
from app.domain.rotation import SecretRotation
from app.domain.vault import SEALED, Vault
from app.services import destinations
from app.services.reencryption import reencrypt
from app.services.webhook_keys import list_webhook_keys, rotate_webhook_key
from app.storage import sealed

PROJECT = Path(__file__).parents[2]
OLD, NEW = new_key(), new_key()
FIELDS = {"headers": {"X-A": "1"}, "auth": {"type": "bearer", "token": "t"}}


def add(engine, key, vault=None, **fields):
    given = DestinationInput(key=key, url="http://example.com/hook", **fields)
    return destinations.create_destination(engine, DEFAULT_TENANT, given, vault or Vault())


def values(database_url):
    """Return everything that may be sealed, in a stable order."""
    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT secret, sealed_headers, sealed_auth, old_secrets FROM destinations ORDER BY id"
        ).fetchall()
        keys = connection.execute("SELECT secret_key FROM webhook_keys ORDER BY id").fetchall()
    found = [value for row in rows for value in row[:3] if value is not None]
    return found + [old["secret"] for row in rows for old in row[3]] + [key for (key,) in keys]


def test_everything_comes_under_the_first_key_also_what_was_plain(
    engine, database_url, monkeypatch
):
    monkeypatch.setattr(sealed, "ROWS", 2)
    for number in range(5):
        add(engine, f"plain{number}")
    by_old = [add(engine, f"sealed{number}", Vault([OLD]), **FIELDS) for number in range(3)]
    destinations.rotate_secret(engine, DEFAULT_TENANT, by_old[0].id, SecretRotation(), Vault([OLD]))
    destinations.delete_destination(engine, DEFAULT_TENANT, by_old[1].id)
    list_webhook_keys(engine, DEFAULT_TENANT, Vault())
    rotate_webhook_key(engine, DEFAULT_TENANT, Vault([OLD]), 60)
    before = values(database_url)
    plain = [Vault([OLD]).open(value) for value in before]
    assert 0 < sum(value.startswith(SEALED) for value in before) < len(before)

    result = reencrypt(engine, Vault([NEW, OLD]))
    assert (result.rewritten, result.unchanged, result.unreadable) == (10, 0, [])
    after = values(database_url)
    assert all(value.startswith(SEALED) for value in after)
    assert [Vault([NEW]).open(value) for value in after] == plain

    result = reencrypt(engine, Vault([NEW, OLD]))
    assert (result.rewritten, result.unchanged, result.unreadable) == (0, 10, [])
    assert values(database_url) == after


def test_what_no_key_opens_is_named_and_stays_and_the_rest_is_done(engine, database_url):
    lost = add(engine, "lost", Vault([new_key()]))
    add(engine, "fine", Vault([OLD]))
    before = values(database_url)
    result = reencrypt(engine, Vault([NEW, OLD]))
    assert (result.rewritten, result.unchanged) == (1, 0)
    assert result.unreadable == [f"destinations lost ({lost.id})"]
    after = values(database_url)
    assert after[0] == before[0]
    Vault([NEW]).open(after[1])
    with pytest.raises(Undecryptable):
        Vault([NEW, OLD]).open(after[0])


def test_without_a_key_nothing_is_done(engine):
    add(engine, "a")
    with pytest.raises(EncryptionKeyMissing):
        reencrypt(engine, Vault())


def run(database_url, keys):
    return subprocess.run(
        [sys.executable, "-m", "app", "reencrypt"],
        cwd=PROJECT,
        env={**os.environ, "DATABASE_URL": database_url, "ENCRYPTION_KEYS": keys},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_says_what_it_did_and_what_it_could_not(engine, database_url):
    add(engine, "plain")
    done = run(database_url, f"{NEW},{OLD}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Encrypted under the first key: 1. Already so: 0.\n"
    done = run(database_url, OLD)
    assert done.returncode == 1
    assert "destinations plain" in done.stdout
    for keys, sentence in (("", "openssl rand -base64 32"), ("hunter2", "ENCRYPTION_KEYS")):
        done = run(database_url, keys)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stderr
