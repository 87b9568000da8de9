"""Standard Webhooks signatures, version ``v1`` (https://www.standardwebhooks.com).

Signed are the bytes ``{id}.{timestamp}.{body}`` with HMAC-SHA256; the header holds one or more
``v1,<base64>`` separated by spaces (several while a secret is being rotated).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping

from app.domain.errors import SignatureInvalid

SECRET_PREFIX = "whsec_"  # noqa: S105  (a prefix, not a secret)
MIN_KEY_BYTES = 24
MAX_KEY_BYTES = 64
NEW_KEY_BYTES = 32
TOLERANCE_SECONDS = 300
MAX_TIMESTAMP_DIGITS = 12

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"


def new_secret() -> str:
    """Return a fresh ``whsec_…`` secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(NEW_KEY_BYTES)).decode()


def decode_secret(secret: str) -> bytes:
    """Return the key in a secret: decode once, sign often.

    Raises:
        ValueError: not ``whsec_`` and the base64 of 24 to 64 bytes.
    """
    encoded = secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if encoded == secret or not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        message = "must be whsec_ and the base64 of 24 to 64 random bytes"
        raise ValueError(message)
    return key


def sign(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature`` for one attempt.

    Args:
        secret: ``whsec_…``.
        webhook_id: the same for all attempts.
        timestamp: of this attempt, in unix seconds.
        body: exactly as sent.
    """
    return sign_with_key(decode_secret(secret), webhook_id, timestamp, body)


def sign_with_key(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """``sign`` for a secret that was decoded before."""
    digest = hmac.digest(key, b"%b.%d.%b" % (webhook_id.encode(), timestamp, body), "sha256")
    return "v1," + base64.b64encode(digest).decode()


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> None:
    """Check a received webhook; returns when it holds.

    Args:
        secret: ``whsec_…``.
        headers: of the request; names in any case.
        body: raw bytes as received, before any parsing.
        now: unix seconds.
        tolerance_seconds: how far the sender's clock, and a replay, may be off.

    Raises:
        SignatureInvalid: a header is missing, the time is off, or no signature fits.
        ValueError: the secret itself is not one.
    """
    key = decode_secret(secret)
    found = {name.lower(): value for name, value in headers.items()}
    for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER):
        if not found.get(name):
            raise SignatureInvalid(f"the header {name} is missing")
        if not found[name].isascii():
            raise SignatureInvalid(f"the header {name} is not ASCII")
    sent_at = found[TIMESTAMP_HEADER]
    if not sent_at.isdigit() or len(sent_at) > MAX_TIMESTAMP_DIGITS:
        raise SignatureInvalid("the timestamp is not a number of seconds")
    if abs(now - int(sent_at)) > tolerance_seconds:
        raise SignatureInvalid("the timestamp is too far from now")
    expected = sign_with_key(key, found[ID_HEADER], int(sent_at), body)
    # Every item is compared, in constant time; versions that we do not know cannot match.
    fits = [hmac.compare_digest(item, expected) for item in found[SIGNATURE_HEADER].split(" ")]
    if not any(fits):
        raise SignatureInvalid("no signature fits")
