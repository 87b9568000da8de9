import base64
import os
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from app.domain.signing import PreparedKey, decode_secret, new_secret, sign, sign_with_key

# The vector of the specification.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_published_vector_holds():
    assert sign(SECRET, ID, TIMESTAMP, BODY) == SIGNATURE


@given(
    webhook_id=st.text("abc_123", min_size=1), body=st.binary(max_size=500).map(base64.b64encode)
)
def test_the_reference_package_agrees(webhook_id, body):
    secret, now = new_secret(), int(time.time())
    ours = sign(secret, webhook_id, now, body)
    theirs = Webhook(secret).sign(webhook_id, datetime.fromtimestamp(now, UTC), body.decode())
    assert ours == theirs


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


@pytest.mark.parametrize("key_bytes", [24, 32, 64])
@pytest.mark.parametrize("length", [0, 1, 63, 2046, 2047, 2048, 5000, 65_536, 65_537, 200_000])
def test_a_prepared_key_signs_as_the_standard_library_does(key_bytes, length):
    key, signed = os.urandom(key_bytes), os.urandom(length)
    prepared = PreparedKey(key)
    for _ in range(2):  # a second time: nothing is left of the first
        assert prepared.sign(signed) == sign_with_key(key, signed)
