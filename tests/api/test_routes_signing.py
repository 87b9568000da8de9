"""Destinations' headers, credentials and signatures, and the installation's keys, over HTTP."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql

from app.domain.encryption import new_key
from app.domain.signing import decode_secret, new_secret
from app.domain.vault import SEALED, Vault
from app.domain.webhook_keys import decode_public_key, decode_secret_key

KEY = new_key()
JSON = {"Content-Type": "application/json"}
AUTH = {"type": "basic", "username": "us3r", "password": "p4ssw0rd"}
HEADERS = {"X-Api-Key": "h34d3r"}
SECRETS = (b"us3r", b"p4ssw0rd", b"h34d3r")


@pytest.fixture
def sealing(serve, database_url, redis_url):
    return serve(database_url=database_url, redis_url=redis_url, encryption_keys=(KEY,))


def ask(web, method, path, body=None):
    return web.ask(method, path, None if body is None else json.dumps(body), JSON)


def create(web, **fields):
    return ask(web, "POST", "/destinations", {"key": "a", "url": "https://x.example/", **fields})


def stored(database_url, columns, table="destinations"):
    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url) as connection:
        statement = sql.SQL("SELECT {} FROM {}").format(sql.SQL(columns), sql.Identifier(table))
        (row,) = connection.execute(statement).fetchall()
    return row


def test_headers_and_credentials_are_stored_encrypted_and_never_shown(sealing, database_url):
    created = create(sealing, headers=HEADERS, auth=AUTH)
    assert created.status == 201
    path = f"/destinations/{created.json['id']}"
    answers = [
        created,
        ask(sealing, "GET", path),
        ask(sealing, "GET", "/destinations"),
        ask(sealing, "PATCH", path, {"description": "x"}),
        ask(sealing, "POST", f"{path}/rotate-secret"),
    ]
    assert {one.status for one in answers} == {200, 201}
    for one in answers:
        assert not any(secret in one.body for secret in SECRETS)
        shown = one.json["items"][0] if "items" in one.json else one.json
        assert (shown["header_names"], shown["auth_type"]) == (["X-Api-Key"], "basic")
        assert not {"sealed_headers", "sealed_auth", "headers", "auth"} & shown.keys()
    row = stored(database_url, "sealed_headers, sealed_auth")
    assert all(value.startswith(SEALED) for value in row)
    assert json.loads(Vault([KEY]).open(row[0])) == HEADERS


def test_secrets_are_encrypted_where_there_is_a_key_and_shown_once(sealing, database_url):
    created = create(sealing).json
    (secret,) = stored(database_url, "secret")
    assert secret.startswith(SEALED)
    assert Vault([KEY]).open(secret) == created["secret"]
    assert "secret" not in ask(sealing, "GET", f"/destinations/{created['id']}").json


def test_without_a_key_credentials_are_refused_and_the_rest_stays_as_it_was(web, database_url):
    for field, value in (("headers", HEADERS), ("auth", AUTH)):
        refused = create(web, **{field: value})
        assert (refused.status, refused.json["code"]) == (422, "encryption_key_missing")
        assert "openssl rand -base64 32" in refused.json["detail"]
        assert [one["pointer"] for one in refused.json["errors"]] == [f"/{field}"]
        assert not any(secret in refused.body for secret in SECRETS)
    assert ask(web, "GET", "/destinations").json["items"] == []
    created = create(web, headers={}, auth=None).json
    assert stored(database_url, "secret") == (created["secret"],)
    changed = ask(web, "PATCH", f"/destinations/{created['id']}", {"auth": AUTH})
    assert (changed.status, changed.json["code"]) == (422, "encryption_key_missing")


def test_headers_are_replaced_as_a_whole_and_null_removes(sealing, database_url):
    path = f"/destinations/{create(sealing, headers=HEADERS, auth=AUTH).json['id']}"
    changed = ask(sealing, "PATCH", path, {"headers": {"X-Other": "1", "Accept": "a/b"}}).json
    assert (changed["header_names"], changed["auth_type"]) == (["X-Other", "Accept"], "basic")
    changed = ask(sealing, "PATCH", path, {"auth": {"type": "bearer", "token": "t"}}).json
    assert (changed["header_names"], changed["auth_type"]) == (["X-Other", "Accept"], "bearer")
    changed = ask(sealing, "PATCH", path, {"headers": None, "auth": None}).json
    assert (changed["header_names"], changed["auth_type"]) == ([], None)
    assert stored(database_url, "sealed_headers, sealed_auth") == (None, None)


def test_a_deleted_destination_keeps_no_credentials(sealing, database_url):
    path = f"/destinations/{create(sealing, headers=HEADERS, auth=AUTH).json['id']}"
    assert ask(sealing, "DELETE", path).status == 204
    assert stored(database_url, "sealed_headers, sealed_auth") == (None, None)


@pytest.mark.parametrize(
    ("fields", "code", "pointer"),
    [
        ({"headers": {"Host": "h34d3r"}}, "headers_invalid", "/headers/Host"),
        ({"headers": {"X-A": "h34d3r\r\nX-B: 1"}}, "headers_invalid", "/headers/X-A"),
        ({"headers": {"X-A\n": "h34d3r"}}, "headers_invalid", "/headers/X-A\n"),
        ({"headers": {"X-\ud800": "h34d3r"}}, "headers_invalid", "/headers/X-?"),
        ({"headers": {"X-A": 1}}, "invalid_input", "/headers/X-A"),
        ({"headers": ["h34d3r"]}, "invalid_input", "/headers"),
        ({"headers": {"authorization": "h34d3r"}, "auth": AUTH}, "headers_invalid", "/auth"),
        ({"auth": {**AUTH, "type": "digest"}}, "invalid_input", "/auth"),
        ({"auth": {**AUTH, "username": "us3r:"}}, "invalid_input", "/auth/username"),
        (
            {"auth": {"type": "bearer", "token": "p4ssw0rd\n"}},
            "invalid_input",
            "/auth/token",
        ),
        ({"auth": "p4ssw0rd"}, "invalid_input", "/auth"),
        ({"signatures": []}, "invalid_input", "/signatures"),
        ({"signatures": ["v2"]}, "invalid_input", "/signatures/0"),
        ({"secret": "whsec_p4ssw0rd"}, "invalid_input", "/secret"),
        ({"body": "cloudevents-xml"}, "invalid_input", "/body"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place_without_its_value(
    sealing, fields, code, pointer
):
    refused = create(sealing, **fields)
    assert (refused.status, refused.json["code"]) == (422, code)
    assert [one["pointer"] for one in refused.json["errors"]] == [pointer]
    assert not any(secret in refused.body for secret in SECRETS)
    assert ask(sealing, "GET", "/destinations").json["items"] == []


def test_authorization_comes_from_one_place_also_after_a_change(sealing):
    one = create(sealing, headers={"Authorization": "x"}).json
    refused = ask(sealing, "PATCH", f"/destinations/{one['id']}", {"auth": AUTH})
    assert (refused.status, refused.json["code"]) == (422, "headers_invalid")
    both = {"auth": AUTH, "headers": {}}
    assert ask(sealing, "PATCH", f"/destinations/{one['id']}", both).status == 200


def test_a_rotated_secret_is_shown_once_and_the_one_before_expires(sealing, database_url):
    created = create(sealing).json
    path = f"/destinations/{created['id']}/rotate-secret"
    before = datetime.now(UTC)
    rotated = ask(sealing, "POST", path)
    assert rotated.status == 200
    assert decode_secret(rotated.json["secret"]) != decode_secret(created["secret"])
    (old,) = rotated.json["old_secrets"]
    assert old.keys() == {"expires_at"}
    assert 86_390 < (datetime.fromisoformat(old["expires_at"]) - before).total_seconds() < 86_430
    secret, old_secrets = stored(database_url, "secret, old_secrets")
    assert all(one.startswith(SEALED) for one in (secret, old_secrets[0]["secret"]))
    assert Vault([KEY]).open(secret) == rotated.json["secret"]
    assert Vault([KEY]).open(old_secrets[0]["secret"]) == created["secret"]

    given = new_secret()
    rotated = ask(sealing, "POST", path, {"secret": given, "overlap_seconds": 0}).json
    assert (rotated["secret"], rotated["old_secrets"]) == (given, [])


def test_rotations_have_bounds(sealing):
    path = f"/destinations/{create(sealing).json['id']}/rotate-secret"
    assert [ask(sealing, "POST", path).status for _ in range(5)] == [200] * 4 + [409]
    assert ask(sealing, "POST", path).json["code"] == "secrets_overlap"
    assert len(ask(sealing, "GET", path.removesuffix("/rotate-secret")).json["old_secrets"]) == 4
    for body, pointer in (
        ({"overlap_seconds": -1}, "/overlap_seconds"),
        ({"overlap_seconds": 30 * 86_400 + 1}, "/overlap_seconds"),
        ({"secret": "whsec_short"}, "/secret"),
    ):
        refused = ask(sealing, "POST", path, body)
        assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, pointer)
    unknown = "/destinations/00000000-0000-7000-8000-000000000000/rotate-secret"
    assert ask(sealing, "POST", unknown).status == 404


def test_the_installation_has_one_current_key_and_shows_its_public_half(sealing, database_url):
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: ask(sealing, "GET", "/webhook-keys"), range(8)))
    assert len({one.body for one in answers}) == 1
    (item,) = answers[0].json["items"]
    assert item.keys() == {"id", "public_key", "created_at", "expires_at"}
    assert item["expires_at"] is None
    public, secret = stored(database_url, "public_key, secret_key", "webhook_keys")
    assert public == item["public_key"]
    pair = decode_secret_key(Vault([KEY]).open(secret))
    assert pair.public_key().public_bytes_raw() == decode_public_key(public).public_bytes_raw()


def test_a_rotated_key_overlaps_with_the_one_before(web):
    first = ask(web, "GET", "/webhook-keys").json["items"][0]
    items = ask(web, "POST", "/webhook-keys/rotate").json["items"]
    assert [one["expires_at"] is None for one in items] == [True, False]
    assert items[1]["public_key"] == first["public_key"]
    ends_in = datetime.fromisoformat(items[1]["expires_at"]) - datetime.now(UTC)
    assert 86_370 < ends_in.total_seconds() < 86_430
    assert ask(web, "GET", "/webhook-keys").json["items"] == items

    (only,) = ask(web, "POST", "/webhook-keys/rotate", {"overlap_seconds": 0}).json["items"]
    assert only["public_key"] not in {one["public_key"] for one in items}


def test_a_destination_that_wants_v1a_makes_the_key(web, database_url):
    created = create(web).json
    assert created["signatures"] == ["v1"]
    path = f"/destinations/{created['id']}"
    changed = ask(web, "PATCH", path, {"signatures": ["v1a", "v1", "v1a"][:2]}).json
    assert changed["signatures"] == ["v1a", "v1"]
    public, expires_at = stored(database_url, "public_key, expires_at", "webhook_keys")
    assert (public[:5], expires_at) == ("whpk_", None)
