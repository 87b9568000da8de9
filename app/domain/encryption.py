"""The form of the keys that encrypt what is stored; what they do is in ``vault``.

Apart, because settings and ``make up`` need no cryptography for this.
"""

from __future__ import annotations

import base64
import binascii
import secrets

KEY_BYTES = 32


def new_key() -> str:
    """Return a fresh key."""
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def normalised_key(text: str) -> str:
    """Return a key as Fernet wants it: base64 of 32 bytes, in the alphabet for URLs.

    The usual alphabet is taken too, so that ``openssl rand -base64 32`` makes one.

    Raises:
        ValueError: it is none.
    """
    usual = text.strip().translate({ord("-"): "+", ord("_"): "/"})
    try:
        raw = base64.b64decode(usual, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_BYTES:
        message = "each key must be the base64 of 32 random bytes (openssl rand -base64 32)"
        raise ValueError(message)
    return base64.urlsafe_b64encode(raw).decode()
