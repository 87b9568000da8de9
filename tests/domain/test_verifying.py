import base64
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from app.domain.errors import SignatureInvalid
from app.domain.signing import new_secret, sign, signed_bytes
from app.domain.verifying import parse_key, verify
from app.domain.webhook_keys import (
    decode_public_key,
    decode_secret_key,
    is_signed_by,
    new_key_pair,
    sign_with_secret_key,
)

PROJECT = Path(__file__).parents[2]

# The vectors of the specification.
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
KEYS = [pytest.param(SECRET, V1, id="v1"), pytest.param(PUBLIC, V1A, id="v1a")]


def headers(signature: str, **changes: str) -> dict[str, str]:
    sent = {
        "webhook-id": ID,
        "webhook-timestamp": str(TIMESTAMP),
        "webhook-signature": signature,
    }
    return {**sent, **{name.replace("_", "-"): value for name, value in changes.items()}}


@pytest.mark.parametrize(("key", "signature"), KEYS)
def test_the_published_vectors_hold(key, signature):
    verify(parse_key(key), headers(signature), BODY, now=TIMESTAMP)


def test_the_published_private_key_makes_the_published_signature():
    key = decode_secret_key(PRIVATE)
    signed = signed_bytes(ID, TIMESTAMP, BODY)
    assert sign_with_secret_key(key, signed) == V1A
    items = (V1A, V1A.removeprefix("v1a,"), V1A.replace("v1a,", "v1,"))
    assert [is_signed_by(key.public_key(), item, signed) for item in items] == [True, False, False]


def test_what_we_sign_the_reference_package_verifies_and_the_other_way_round():
    secret, now = new_secret(), int(time.time())
    sent = {
        "webhook-id": ID,
        "webhook-timestamp": str(now),
        # It passes over what it does not know.
        "webhook-signature": f"{V1A} {sign(secret, ID, now, BODY)}",
    }
    assert Webhook(secret).verify(BODY, sent) == {"test": 2432232314}
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, sent)
    signed = Webhook(secret).sign(ID, datetime.fromtimestamp(now, UTC), BODY.decode())
    verify(parse_key(secret), {**sent, "webhook-signature": signed}, BODY, now=now)


@given(webhook_id=st.text("abc_123", min_size=1), body=st.binary(max_size=500))
def test_a_fresh_pair_verifies_what_it_signed_and_no_other_does(webhook_id, body):
    pair, other = new_key_pair(), new_key_pair()
    signed = signed_bytes(webhook_id, TIMESTAMP, body)
    signature = sign_with_secret_key(decode_secret_key(pair.secret_key), signed)
    sent = headers(signature, webhook_id=webhook_id)
    verify(parse_key(pair.public_key), sent, body, now=TIMESTAMP)
    with pytest.raises(SignatureInvalid, match="no signature fits"):
        verify(parse_key(other.public_key), sent, body, now=TIMESTAMP)


@pytest.mark.parametrize(("key", "signature"), KEYS)
@pytest.mark.parametrize(
    "among",
    ["{} v1,AAAA", "v1,AAAA {}", "v1a,hnO3f9T8Ytu9HwrX {}", "{} v1a,!", "v9,whatever  {}"],
)
def test_one_fitting_signature_among_several_is_enough(key, signature, among):
    sent = headers(among.format(signature))
    verify(parse_key(key), sent, BODY, now=TIMESTAMP)


def test_header_names_come_in_any_case():
    sent = {name.title(): value for name, value in headers(V1).items()}
    verify(parse_key(SECRET), sent, BODY, now=TIMESTAMP)


@pytest.mark.parametrize(("key", "signature"), KEYS)
@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({"webhook_id": "msg_other"}, BODY),
        ({"webhook_timestamp": str(TIMESTAMP + 1)}, BODY),
        ({}, BODY + b" "),
        ({"webhook_signature": V1[:-2] + "A= " + V1A[:-3] + "w=="}, BODY),
        ({"webhook_signature": f"{V1[:-4]} {V1A[:-4]}"}, BODY),
        ({"webhook_signature": V1.replace("v1,", "v2,") + " " + V1A.replace("v1a,", "v1b,")}, BODY),
        ({"webhook_signature": V1.replace("v1,", "v1a,") + " " + V1A.replace("v1a,", "v1,")}, BODY),
        ({"webhook_signature": V1.removeprefix("v1,") + " " + V1A.removeprefix("v1a,")}, BODY),
        ({"webhook_signature": "v1, v1a,"}, BODY),
    ],
)
def test_anything_that_was_changed_is_refused(key, signature, changes, body):
    with pytest.raises(SignatureInvalid, match="no signature fits"):
        verify(parse_key(key), headers(signature, **changes), body, now=TIMESTAMP)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"webhook_signature": "v1,é"}, "webhook-signature is not ASCII"),
        ({"webhook_id": "msg_\udcff"}, "webhook-id is not ASCII"),
        ({"webhook_signature": ""}, "webhook-signature is missing"),
        ({"webhook_signature": V1A}, "none is of version v1"),
        ({"webhook_id": ""}, "webhook-id is missing"),
        ({"webhook_timestamp": ""}, "webhook-timestamp is missing"),
        ({"webhook_timestamp": "yesterday"}, "not a number"),
        ({"webhook_timestamp": "1e9"}, "not a number"),
        ({"webhook_timestamp": f"+{TIMESTAMP}"}, "not a number"),
        ({"webhook_timestamp": "9" * 5000}, "not a number"),
    ],
)
def test_what_is_no_webhook_is_refused_with_its_reason(changes, reason):
    with pytest.raises(SignatureInvalid, match=reason):
        verify(parse_key(SECRET), headers(V1, **changes), BODY, now=TIMESTAMP)


@pytest.mark.parametrize(("off", "fine"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_a_time_more_than_five_minutes_off_is_refused(off, fine):
    key = parse_key(SECRET)
    if fine:
        verify(key, headers(V1), BODY, now=TIMESTAMP + off)
    else:
        with pytest.raises(SignatureInvalid, match="too far"):
            verify(key, headers(V1), BODY, now=TIMESTAMP + off)


RAW = base64.b64decode(PUBLIC.removeprefix("whpk_"))
DER = decode_public_key(PUBLIC).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
PEM = (
    decode_public_key(PUBLIC).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
)


@pytest.mark.parametrize(
    "text",
    [
        PUBLIC,
        f"  {PUBLIC}\n",
        PEM,
        PEM.replace("\n", "\r\n"),
        PEM.replace("\n", "\\n"),
        PEM.replace("\n", " "),
        f"# the installation's key\n{PEM}",
        base64.b64encode(PEM.encode()).decode(),
        base64.b64encode(DER).decode(),
        base64.encodebytes(DER).decode(),
        base64.b64encode(RAW).decode(),
        base64.urlsafe_b64encode(RAW).decode().rstrip("="),
    ],
)
def test_a_public_key_is_understood_in_every_form(text):
    verify(parse_key(text), headers(V1A), BODY, now=TIMESTAMP)


PRIVATE_PEM = decode_secret_key(PRIVATE).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be whsec_"),
        ("hello world", "must be whsec_"),
        ("é", "must be whsec_"),
        (base64.b64encode(RAW[:-1]).decode(), "must be whsec_"),
        (PEM.replace("MCow", "MCox"), "must be whsec_"),
        ("-----BEGIN CERTIFICATE-----\nMCow\n-----END CERTIFICATE-----", "must be whsec_"),
        ("whsec_short", "24 to 64 random bytes"),
        ("whpk_short", "whpk_ and the base64 of 32 bytes"),
        (PRIVATE, "is a private key"),
        (PRIVATE_PEM.decode(), "is a private key"),
        (base64.b64encode(PRIVATE_PEM).decode(), "is a private key"),
    ],
)
def test_what_is_no_verification_key_is_refused_without_showing_it(text, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        parse_key(text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize(
    "generate", [lambda: ec.generate_private_key(ec.SECP256R1()), x25519.X25519PrivateKey.generate]
)
def test_a_public_key_of_another_kind_is_refused(generate):
    public = generate().public_key()
    with pytest.raises(ValueError, match="of another kind"):
        parse_key(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


@pytest.mark.parametrize("key", [PUBLIC, PRIVATE[:-4] + "AA==", PRIVATE[:-8] + "AAAA" + "vg=="])
def test_a_private_key_that_is_none_is_refused(key):
    with pytest.raises(ValueError, match="whsk_"):
        decode_secret_key(key)


def test_a_private_key_does_not_show_itself():
    pair = new_key_pair()
    assert pair.secret_key not in repr(pair)
    assert pair.public_key in repr(pair)


def test_signing_with_secrets_needs_no_cryptography():
    code = "import sys, app.domain.destinations; print('cryptography' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"
