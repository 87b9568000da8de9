"""Headers, credentials and keys from the row to the receiver, through a real pump."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from app.domain.credentials import sealed_auth, sealed_headers
from app.domain.destinations import DestinationChanges, DestinationInput
from app.domain.documents import DEFAULT_TENANT
from app.domain.encryption import new_key
from app.domain.envelopes import JSON, Payload
from app.domain.errors import SignatureInvalid
from app.domain.rotation import SecretRotation, WebhookKey
from app.domain.signing import new_secret
from app.domain.vault import Vault
from app.domain.verifying import parse_key, verify
from app.domain.webhook_keys import new_key_pair
from app.services import destinations as services
from app.services.webhook_keys import list_webhook_keys, rotate_webhook_key
from tests.delivery.conftest import wait_until
from tests.delivery.test_sender import DESTINATION
from worker import outbox
from worker.targets import Targets, TargetUnusable

KEY = new_key()
VAULT = Vault([KEY])
AUTH = {"type": "basic", "username": "jürgen", "password": "☃"}
PAYLOAD = Payload(b"{}", JSON)


@pytest.fixture
def register(engine, receiver):
    def register(vault=VAULT, **fields):
        given = DestinationInput(key="a", url=receiver.url, **fields)
        return services.create_destination(engine, DEFAULT_TENANT, given, vault)

    return register


def fits(key, request):
    try:
        verify(parse_key(key), request.headers, request.body, now=time.time())
    except SignatureInvalid:
        return False
    return True


def deliver(yard, delivery, receiver, destination):
    """Deliver one document; return the request."""
    yard.one(destination)
    count = len(receiver.received)
    delivery.deliver(destination)
    wait_until(lambda: len(receiver.received) > count)
    delivery.wait_until_idle()
    return receiver.received[-1]


def test_headers_and_credentials_arrive_with_every_request(yard, make_delivery, receiver, register):
    delivery = make_delivery(vault=VAULT)
    headers = {"X-Api-Version": "2", "user-agent": "mine/1", "X-Empty": ""}
    destination = register(headers=headers, auth=AUTH)
    request = deliver(yard, delivery, receiver, destination)
    assert request.headers["x-api-version"] == "2"
    assert request.headers["x-empty"] == ""
    assert request.headers["user-agent"] == "mine/1"
    assert request.headers["accept-encoding"] == "identity"
    expected = base64.b64encode("jürgen:☃".encode()).decode()
    assert request.headers["authorization"] == f"Basic {expected}"
    Webhook(destination.secret).verify(request.body, request.headers)

    changes = DestinationChanges(headers=None, auth={"type": "bearer", "token": "t0k3n"})
    services.change_destination(yard.engine, DEFAULT_TENANT, destination.id, changes, VAULT)
    request = deliver(yard, delivery, receiver, destination)
    assert request.headers["authorization"] == "Bearer t0k3n"
    assert request.headers["user-agent"].startswith("Docyard/")
    assert "x-api-version" not in request.headers


def test_a_rotated_secret_and_the_one_before_both_verify(yard, make_delivery, receiver, register):
    delivery = make_delivery(vault=VAULT)
    destination = register()
    new = services.rotate_secret(
        yard.engine, DEFAULT_TENANT, destination.id, SecretRotation(), VAULT
    )
    request = deliver(yard, delivery, receiver, destination)
    first, second = request.headers["webhook-signature"].split(" ")
    for secret, item in ((new.secret, first), (destination.secret, second)):
        Webhook(secret).verify(request.body, {**request.headers, "webhook-signature": item})
    for secret in (new.secret, destination.secret):
        Webhook(secret).verify(request.body, request.headers)

    rotation = SecretRotation(secret=new_secret(), overlap_seconds=0)
    services.rotate_secret(yard.engine, DEFAULT_TENANT, destination.id, rotation, VAULT)
    request = deliver(yard, delivery, receiver, destination)
    assert [fits(key, request) for key in (rotation.secret, new.secret)] == [True, False]
    assert " " not in request.headers["webhook-signature"]


def test_public_keys_verify_and_rotate_with_an_overlap(yard, make_delivery, receiver, register):
    delivery = make_delivery(vault=VAULT)
    destination = register(signatures=["v1a"])
    (first,) = list_webhook_keys(yard.engine, DEFAULT_TENANT, VAULT)
    request = deliver(yard, delivery, receiver, destination)
    assert request.headers["webhook-signature"].startswith("v1a,")
    assert [fits(first.public_key, request), fits(destination.secret, request)] == [True, False]

    second, old = rotate_webhook_key(yard.engine, DEFAULT_TENANT, VAULT, 3600)
    assert old.public_key == first.public_key
    request = deliver(yard, delivery, receiver, destination)
    assert [fits(one.public_key, request) for one in (second, first)] == [True, True]
    assert request.headers["webhook-signature"].count("v1a,") == 2

    (third,) = rotate_webhook_key(yard.engine, DEFAULT_TENANT, VAULT, 0)
    request = deliver(yard, delivery, receiver, destination)
    assert [fits(one.public_key, request) for one in (third, second)] == [True, False]


def test_a_holder_hears_of_a_rotation_while_it_delivers(yard, make_delivery, receiver, register):
    delivery = make_delivery(vault=VAULT, concurrency=1)
    destination = register(signatures=["v1", "v1a"])
    release = receiver.hangs()
    yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.in_flight)
    (new,) = rotate_webhook_key(yard.engine, DEFAULT_TENANT, VAULT, 0)
    yard.one(destination)
    delivery.pump.ring(DEFAULT_TENANT, destination.id)
    release()
    wait_until(lambda: yard.states() == {"delivered": 2})
    before, behind = receiver.received
    assert [fits(new.public_key, one) for one in (before, behind)] == [False, True]
    assert all(fits(destination.secret, one) for one in (before, behind))


def test_what_cannot_be_decrypted_waits_and_says_why_until_it_can(
    yard, make_delivery, receiver, register, monkeypatch
):
    monkeypatch.setattr(outbox, "BLOCKED_SECONDS", 0.2)
    destination = register(auth=AUTH)
    document = yard.one(destination)
    wrong = make_delivery(vault=Vault([new_key()]))
    wrong.deliver(destination)
    wait_until(lambda: yard.runtime(destination).blocked_reason)
    wrong.wait_until_idle()
    assert receiver.received == []
    assert (yard.row(document).state, yard.row(document).attempts) == ("pending", 0)
    reasons = services.blocked_reasons(yard.engine, DEFAULT_TENANT, [destination])
    assert "none of the keys in ENCRYPTION_KEYS fits" in reasons[destination.id]
    assert yard.runtime(destination).holder is None

    right = make_delivery(vault=Vault([new_key(), KEY]))

    def delivered():
        right.deliver(destination)
        return yard.states() == {"delivered": 1}

    wait_until(delivered)
    right.wait_until_idle()
    assert services.blocked_reasons(yard.engine, DEFAULT_TENANT, [destination]) == {}
    assert len(receiver.received) == 1


def test_while_a_destination_is_blocked_nobody_takes_it_up(yard, make_delivery, register):
    destination = register()
    yard.one(destination)
    keyless = make_delivery()
    keyless.deliver(destination)
    wait_until(lambda: yard.runtime(destination).blocked_reason)
    keyless.wait_until_idle()
    epoch = yard.runtime(destination).epoch
    for _ in range(5):
        keyless.deliver(destination)
    keyless.wait_until_idle()
    assert yard.runtime(destination).epoch == epoch
    assert "ENCRYPTION_KEYS is not set here" in yard.runtime(destination).blocked_reason


# What is prepared for many requests


def signature(destination, at, vault=None):
    request = Targets(vault).of(destination).request("msg_1", at, PAYLOAD)
    lines = request.split(b"\r\n\r\n")[0].decode().split("\r\n")
    return dict(line.split(": ", 1) for line in lines[1:])["webhook-signature"].split(" ")


def test_what_was_replaced_stops_to_sign_at_its_time_without_another_look():
    now = int(time.time())
    pair, old = new_key_pair(), new_key_pair()
    at = datetime.fromtimestamp(now, UTC)
    keys = [
        WebhookKey(
            id=DESTINATION.id,
            public_key=one.public_key,
            secret_key=one.secret_key,
            created_at=at,
            expires_at=expires_at,
        )
        for one, expires_at in ((pair, None), (old, at + timedelta(seconds=20)))
    ]
    destination = replace(
        DESTINATION,
        signatures=["v1", "v1a"],
        old_secrets=[{"secret": new_secret(), "expires_at": now + 10}],
        webhook_keys=keys,
    )
    versions = {
        seconds: [one.partition(",")[0] for one in signature(destination, now + seconds)]
        for seconds in (0, 9, 10, 19, 20)
    }
    assert versions[0] == versions[9]
    assert versions[9][:2] == ["v1", "v1a"]
    assert sorted(versions[9]) == ["v1", "v1", "v1a", "v1a"]
    assert versions[10] == versions[19] == ["v1", "v1a", "v1a"]
    assert versions[20] == ["v1", "v1a"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"secret": VAULT.seal(new_secret(), "")}, "what signs cannot be decrypted"),
        (
            {"old_secrets": [{"secret": VAULT.seal("x", ""), "expires_at": 2**40}]},
            "what signs cannot be decrypted",
        ),
        ({"secret": "whsec_?"}, "what signs is damaged"),
        ({"signatures": ["v1a"]}, "no webhook key"),
        (sealed_headers({"X-A": "1"}, VAULT), "its headers cannot be decrypted"),
        (
            sealed_auth(DestinationInput(key="a", url="http://x/", auth=AUTH).auth, VAULT),
            "its headers cannot be decrypted",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_target_that_cannot_be_prepared_says_which_part(fields, reason):
    with pytest.raises(TargetUnusable, match=reason):
        Targets(Vault([new_key()])).of(replace(DESTINATION, **fields))


def test_a_secret_that_has_expired_need_not_be_readable():
    lost = {"secret": VAULT.seal("x", ""), "expires_at": int(time.time())}
    destination = replace(DESTINATION, old_secrets=[lost])
    assert len(signature(destination, int(time.time()))) == 1


def test_secrets_do_not_show_themselves_in_a_target():
    auth = DestinationInput(key="a", url="http://x/", auth=AUTH).auth
    made = Targets(VAULT).of(replace(DESTINATION, **sealed_auth(auth, VAULT)))
    assert auth.header() in made.head
    assert auth.header() not in repr(made)
    assert "signers" not in repr(made)


def test_secrets_do_not_show_themselves_in_a_destination():
    secret = new_secret()
    destination = replace(DESTINATION, secret=secret, sealed_auth="s34l", sealed_headers="s34l")
    shown = repr(replace(destination, old_secrets=[{"secret": secret, "expires_at": 1}]))
    assert secret not in shown
    assert "s34l" not in shown
