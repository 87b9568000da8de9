import base64
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from app.domain.errors import SignatureInvalid
from app.domain.signing import decode_secret, new_secret, sign, verify

# The vector of the specification.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def headers(**changes: str) -> dict[str, str]:
    sent = {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP),
        "webhook-signature": SIGNATURE,
    }
    return {**sent, **{name.replace("_", "-"): value for name, value in changes.items()}}


def test_the_published_vector_holds():
    assert sign(SECRET, ID, TIMESTAMP, BODY) == SIGNATURE
    verify(SECRET, headers(), BODY, now=TIMESTAMP)


@given(
    webhook_id=st.text("abc_123", min_size=1), body=st.binary(max_size=500).map(base64.b64encode)
)
def test_the_reference_package_agrees(webhook_id, body):
    secret, now = new_secret(), int(time.time())
    ours = sign(secret, webhook_id, now, body)
    theirs = Webhook(secret).sign(webhook_id, datetime.fromtimestamp(now, UTC), body.decode())
    assert ours == theirs


def test_what_we_sign_the_reference_package_verifies_and_the_other_way_round():
    secret, now = new_secret(), int(time.time())
    sent = {
        "webhook-id": ID,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secret, ID, now, BODY),
    }
    assert Webhook(secret).verify(BODY, sent) == {"test": 2432232314}
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, sent)
    signed = Webhook(secret).sign(ID, datetime.fromtimestamp(now, UTC), BODY.decode())
    verify(secret, {**sent, "webhook-signature": signed}, BODY, now=now)


@pytest.mark.parametrize(
    "signatures",
    [
        f"{SIGNATURE} v1,AAAA",
        f"v1,AAAA {SIGNATURE}",
        f"v1a,hnO3f9T8Ytu9HwrX {SIGNATURE}",
        f"v9,whatever  {SIGNATURE}",
    ],
)
def test_one_fitting_signature_among_several_is_enough(signatures):
    verify(SECRET, headers(webhook_signature=signatures), BODY, now=TIMESTAMP)


def test_header_names_come_in_any_case():
    sent = {name.title(): value for name, value in headers().items()}
    verify(SECRET, sent, BODY, now=TIMESTAMP)


@pytest.mark.parametrize(
    ("changes", "body", "reason"),
    [
        ({"webhook_id": "msg_other"}, BODY, "no signature fits"),
        ({"webhook_timestamp": str(TIMESTAMP + 1)}, BODY, "no signature fits"),
        ({}, BODY + b" ", "no signature fits"),
        ({"webhook_signature": SIGNATURE[:-2] + "A="}, BODY, "no signature fits"),
        ({"webhook_signature": SIGNATURE.replace("v1,", "v2,")}, BODY, "no signature fits"),
        ({"webhook_signature": SIGNATURE.removeprefix("v1,")}, BODY, "no signature fits"),
        ({"webhook_signature": "v1,"}, BODY, "no signature fits"),
        ({"webhook_signature": "v1,é"}, BODY, "webhook-signature is not ASCII"),
        ({"webhook_id": "msg_\udcff"}, BODY, "webhook-id is not ASCII"),
        ({"webhook_signature": ""}, BODY, "webhook-signature is missing"),
        ({"webhook_id": ""}, BODY, "webhook-id is missing"),
        ({"webhook_timestamp": ""}, BODY, "webhook-timestamp is missing"),
        ({"webhook_timestamp": "yesterday"}, BODY, "not a number"),
        ({"webhook_timestamp": "1e9"}, BODY, "not a number"),
        ({"webhook_timestamp": f"+{TIMESTAMP}"}, BODY, "not a number"),
        ({"webhook_timestamp": "9" * 5000}, BODY, "not a number"),
    ],
)
def test_anything_that_was_changed_is_refused(changes, body, reason):
    with pytest.raises(SignatureInvalid, match=reason):
        verify(SECRET, headers(**changes), body, now=TIMESTAMP)


def test_another_secret_does_not_fit():
    with pytest.raises(SignatureInvalid, match="no signature fits"):
        verify(new_secret(), headers(), BODY, now=TIMESTAMP)


@pytest.mark.parametrize(("off", "fine"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_a_time_more_than_five_minutes_off_is_refused(off, fine):
    if fine:
        verify(SECRET, headers(), BODY, now=TIMESTAMP + off)
    else:
        with pytest.raises(SignatureInvalid, match="too far"):
            verify(SECRET, headers(), BODY, now=TIMESTAMP + off)


def test_new_secrets_are_unlike_and_usable():
    assert new_secret() != new_secret()
    assert len(decode_secret(new_secret())) == 32


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_not base64",
        "whsec_MfKQ",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_é",
    ],
)
def test_a_secret_that_is_none_is_refused(secret):
    with pytest.raises(ValueError, match="24 to 64 random bytes"):
        decode_secret(secret)
