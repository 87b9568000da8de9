"""Standard Webhooks signatures, version ``v1`` (https://www.standardwebhooks.com).

Signed are the bytes ``{id}.{timestamp}.{body}`` with HMAC-SHA256; the header holds one or more
``v1,<base64>`` separated by spaces (several while a secret is being rotated). Version ``v1a``, by
Ed25519, is in ``webhook_keys``; what a receiver does with either is in ``verifying``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

SECRET_PREFIX = "whsec_"  # noqa: S105  (a prefix, not a secret)
MIN_KEY_BYTES = 24
MAX_KEY_BYTES = 64
NEW_KEY_BYTES = 32
_BLOCK_BYTES = 64
_LOCKED_BYTES = 2047
_LONG_BYTES = 64 * 1024

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


class PreparedKey:
    """A secret that signs many bodies: the key is hashed once, and no other thread comes between.

    ``hmac.digest`` gives up the interpreter lock for three microseconds of work, and gets it back
    when the other threads of the process pause: a fifth of the pump's time was spent waiting for
    it. OpenSSL's hashes keep the lock for pieces of less than 2,048 bytes. What is long may wait.
    """

    def __init__(self, key: bytes) -> None:
        """Prepare a key of at most 64 bytes (RFC 2104, for SHA-256)."""
        block = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def sign(self, signed: bytes) -> str:
        """Return one item of ``webhook-signature``."""
        inner = self._inner.copy()
        if len(signed) <= _LOCKED_BYTES or len(signed) > _LONG_BYTES:
            inner.update(signed)
        else:
            rest = memoryview(signed)
            for begin in range(0, len(signed), _LOCKED_BYTES):
                inner.update(rest[begin : begin + _LOCKED_BYTES])
        outer = self._outer.copy()
        outer.update(inner.digest())
        return "v1," + base64.b64encode(outer.digest()).decode()


def sign_with_key(key: bytes, signed: bytes) -> str:
    """Return one item of ``webhook-signature``, by a secret that was decoded before."""
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
