"""Settings: platform URLs, clear refusals, the guard against an open bind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg.pq import Conninfo

from app.domain.errors import SettingsInvalid
from app.settings import DATABASE_PARAMETERS, Settings, environment_with, load_settings
from app.storage.engine import sqlalchemy_url

PROJECT = Path(__file__).parents[1]

KEY = "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8="


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def test_tls_redis_goes_before_plain(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://plain:6379")
    assert load_settings().queue_url == "redis://plain:6379"
    monkeypatch.setenv("REDIS_TLS_URL", "rediss://tls:6380")
    assert load_settings().queue_url == "rediss://tls:6380"


def test_heroku_urls_are_understood(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://u:p@h:5432/d")
    monkeypatch.setenv("REDIS_URL", "rediss://:p@h:6380")
    settings = load_settings()
    assert settings.database_url == "postgres://u:p@h:5432/d"
    assert settings.queue_url == "rediss://:p@h:6380"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("DATABASE_URL", "mysql://h/d"),
        ("REDIS_URL", "http://h"),
        ("DESTINATION_ALLOW_CIDRS", "10.0.0.0/40"),
        ("REQUIRE_DURABILITY", "sometimes"),
        ("WEB_CONCURRENCY", "0"),
        ("ENCRYPTION_KEYS", "hunter2"),
        ("ENCRYPTION_KEYS", "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=,hunter2"),
    ],
)
def test_a_bad_variable_is_named_without_its_value(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid) as refused:
        load_settings()
    assert name in str(refused.value)
    assert name == "DESTINATION_ALLOW_CIDRS" or value not in str(refused.value)


def test_arguments_go_before_the_environment(monkeypatch):
    monkeypatch.setenv("PORT", "1")
    assert load_settings(port=2).port == 2
    assert load_settings(port=None).port == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host):
    load_settings(host=host).require_guarded_bind()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.com"])  # noqa: S104
def test_an_open_bind_needs_a_key_or_a_word(host):
    with pytest.raises(SettingsInvalid, match="ADMIN_API_KEY"):
        load_settings(host=host).require_guarded_bind()
    with pytest.raises(SettingsInvalid):
        load_settings(host=host, admin_api_key="  ").require_guarded_bind()
    load_settings(host=host, admin_api_key="k").require_guarded_bind()
    load_settings(host=host, allow_anonymous=True).require_guarded_bind()


def test_encryption_keys_do_not_show_themselves(monkeypatch):
    monkeypatch.setenv("ENCRYPTION_KEYS", f"{KEY},")
    settings = load_settings()
    assert settings.encryption_keys == (KEY,)
    assert KEY not in repr(settings)
    monkeypatch.setenv("ENCRYPTION_KEYS", "")
    assert load_settings().encryption_keys == ()


def test_children_read_the_same_settings(monkeypatch):
    settings = load_settings(
        port=9,
        destination_allow_cidrs="10.0.0.0/8, ::1/128",
        allow_anonymous=True,
        encryption_keys=f"{KEY}, {KEY}\n",
    )
    for name, value in environment_with(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "postgres://u:hunter2@h:abc/d"),
        ("DATABASE_URL", "postgres://u:hun@ter2@h/d"),
        ("DATABASE_URL", "postgres://u:hunter2:5432@ter@h:1/d"),
        ("DATABASE_URL", "postgres://u:hunter2@[::1/d"),
        ("DATABASE_URL", "postgres://u:hunter2@h:99999/d"),
        ("DATABASE_URL", "postgres://u:hunter2@h:1,h:2/d"),
        ("REDIS_URL", "redis://:hunter2@h:abc/0"),
        ("REDIS_URL", "redis://:hun#ter2@h:6379/0"),
        ("REDIS_URL", "redis://:hun/ter2@h:6379/0"),
        ("REDIS_URL", "redis://:hunter2@[::1/0"),
        ("REDIS_TLS_URL", "rediss://:hunter2@h:99999"),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid) as refused:
        load_settings()
    assert str(refused.value).startswith(f"{name}: ")
    assert "ter" not in str(refused.value).replace("letter", "")


@pytest.mark.parametrize(
    ("name", "value", "parameter"),
    [
        ("DATABASE_URL", "postgres://u:p@h/d?sslmode=require&pgbouncer=true", "pgbouncer"),
        ("DATABASE_URL", "postgres://h?autocommit=1", "autocommit"),
        ("REDIS_URL", "redis://h/0?decode_responses=1", "decode_responses"),
        ("REDIS_TLS_URL", "rediss://h:1?family=", "family"),
        ("REDIS_URL", "unix:///s?db=0&typo=1", "typo"),
        ("REDIS_URL", "redis://h?db=one", "db"),
    ],
)
def test_a_parameter_that_no_connection_knows_is_refused(monkeypatch, name, value, parameter):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid, match=rf"^{name}: .*\b{parameter}\b"):
        load_settings()


def test_whatever_libpq_takes_is_known():
    assert {option.keyword.decode() for option in Conninfo.get_defaults()} <= DATABASE_PARAMETERS


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:p@h:5432/d?sslmode=require",
        "postgres://u:with?hunter=2@h/d",
        "postgres://%2Fvar%2Frun%2Fpostgresql/d",
        "postgresql+psycopg://app@/postgres?host=/tmp/with%20space:and@sign",
        "postgresql:///d",
        "postgres://u:p%40%2F%3A%23@[::1]:5432/d",
        "postgres://u:with/slash#hash@h:5432/d",
        "postgres://u@h",
        "postgres://h:5432?sslmode=require",
    ],
)
def test_every_spelling_of_a_database_is_understood_as_sqlalchemy_does(monkeypatch, url):
    monkeypatch.setenv("DATABASE_URL", url)
    assert sqlalchemy_url(load_settings().database_url).drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://:p%40%2F@[::1]:6379/1",
        "rediss://default:p@h:6380?ssl_cert_reqs=none",
        "unix:///tmp/with%20space/a@b.sock?db=2",
    ],
)
def test_every_spelling_of_a_queue_is_understood(monkeypatch, url):
    monkeypatch.setenv("REDIS_URL", url)
    assert load_settings().queue_url == url


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({"PORT": "abc"}, ["openapi"]),
        ({"DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/d"}, ["migrate"]),
        ({"DATABASE_URL": "postgres://h/d?pgbouncer=true"}, ["migrate"]),
        ({"DATABASE_URL": "postgres://h/d?pgbouncer=true"}, ["serve"]),
        ({"DATABASE_URL": "postgres://h/d?pgbouncer=true"}, ["verify"]),
        ({"ALLOW_ANONYMOUS": "1", "HOST": "a..b"}, ["serve"]),
        ({"HOST": "a..b"}, ["up"]),
    ],
)
def test_what_does_not_work_is_one_sentence_not_a_trace(tmp_path, variables, arguments):
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=PROJECT,
        env={**os.environ, "DOCYARD_DATA": str(tmp_path / "data"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "hunter2" not in done.stderr
