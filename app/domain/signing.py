"""Standard Webhooks signatures, version ``v1`` (https://www.standardwebhooks.com).

Signed are the bytes ``{id}.{timestamp}.{body}`` with HMAC-SHA256; the header holds one or more
``v1,<base64>`` separated by spaces (several while a secret is being rotated). Version ``v1a``, by
Ed25519, is in ``webhook_keys``; what a receiver does with either is in ``verifying``.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets

SECRET_PREFIX = "whsec_"  # noqa: S105  (a prefix, not a secret)
MIN_KEY_BYTES = 24
MAX_KEY_BYTES = 64
NEW_KEY_BYTES = 32

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
    return sign_with_key(decode_secret(secret), signed_bytes(webhook_id, timestamp, body))


def signed_bytes(webhook_id: str, timestamp: int, body: bytes) -> bytes:
    """Return what every version signs."""
    return b"%b.%d.%b" % (webhook_id.encode(), timestamp, body)


def sign_with_key(key: bytes, signed: bytes) -> str:
    """Return one item of ``webhook-signature``, by a secret that was decoded before."""
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
