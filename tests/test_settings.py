"""Settings: platform URLs, clear refusals, the guard against an open bind."""

from __future__ import annotations

import pytest

from app.domain.errors import SettingsInvalid
from app.settings import Settings, environment_with, load_settings

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
