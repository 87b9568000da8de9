"""What a receiver of webhooks does: read the key that it was given, and check what arrives.

The key is what ``VERIFICATION_KEY`` holds for ``python -m app listen`` and for the examples:

=============================== ====================================================
``whsec_…``                     the destination's secret; checks ``v1`` (HMAC-SHA256)
``whpk_…``                      a public key of ``GET /webhook-keys``; ``v1a`` (Ed25519)
``-----BEGIN PUBLIC KEY-----``  the same as PEM; its line ends may be spaces
base64                          of the PEM, of its DER, or of the 32 bytes alone
=============================== ====================================================
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from app.domain import webhook_keys
from app.domain.errors import SignatureInvalid
from app.domain.signing import (
    ID_HEADER,
    SECRET_PREFIX,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    decode_secret,
    sign_with_key,
    signed_bytes,
)

TOLERANCE_SECONDS = 300
MAX_TIMESTAMP_DIGITS = 12
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----(.*)-----END PUBLIC KEY-----", re.DOTALL)
_PRIVATE = "PRIVATE KEY-----"
_SPACES = re.compile(r"\s|\\[nr]")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A key, read once for many webhooks.

    Attributes:
        version: of the signatures that it checks.
        fits: tells whether an item of ``webhook-signature`` signs these bytes.
    """

    version: Literal["v1", "v1a"]
    fits: Callable[[str, bytes], bool] = field(repr=False)


def parse_key(text: str) -> VerificationKey:
    """Read a verification key in any of its forms.

    Raises:
        ValueError: says what is wrong with it, never what it is.
    """
    text = text.strip()
    if text.startswith(SECRET_PREFIX):
        key = decode_secret(text)
        return VerificationKey(
            version="v1",
            fits=lambda item, signed: hmac.compare_digest(item, sign_with_key(key, signed)),
        )
    public = _public_key(text)
    return VerificationKey(
        version="v1a", fits=lambda item, signed: webhook_keys.is_signed_by(public, item, signed)
    )


def verify(
    key: VerificationKey,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> None:
    """Check a received webhook; returns when it holds.

    Args:
        key: of ``parse_key``.
        headers: of the request; names in any case.
        body: raw bytes as received, before any parsing.
        now: unix seconds.
        tolerance_seconds: how far the sender's clock, and a replay, may be off.

    Raises:
        SignatureInvalid: a header is missing, the time is off, or no signature fits.
    """
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
    signed = signed_bytes(found[ID_HEADER], int(sent_at), body)
    # Every item is compared, in constant time; versions that we do not know cannot match.
    items = found[SIGNATURE_HEADER].split(" ")
    fits = [key.fits(item, signed) for item in items if item.startswith(f"{key.version},")]
    if not fits:
        raise SignatureInvalid(f"no signature fits: none is of version {key.version}")
    if not any(fits):
        raise SignatureInvalid("no signature fits")


def _public_key(text: str) -> Ed25519PublicKey:
    if text.startswith(webhook_keys.PUBLIC_PREFIX):
        return webhook_keys.decode_public_key(text)
    if text.startswith(webhook_keys.SECRET_PREFIX) or _PRIVATE in text:
        message = "is a private key; a receiver verifies with the public one"
        raise ValueError(message)
    if pem := _PEM.search(text):
        return _from_der(_base64(_SPACES.sub("", pem[1])))
    raw = _base64(_SPACES.sub("", text))
    if len(raw) == webhook_keys.PUBLIC_BYTES:
        return Ed25519PublicKey.from_public_bytes(raw)
    if raw.startswith(b"-----BEGIN "):
        return _public_key(raw.decode("latin-1"))
    return _from_der(raw)


def _from_der(der: bytes) -> Ed25519PublicKey:
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise _unreadable() from None
    if not isinstance(key, Ed25519PublicKey):
        message = "is a public key of another kind; signatures are made with Ed25519"
        raise ValueError(message)  # noqa: TRY004  (the text is wrong, not its type)
    return key


def _base64(text: str) -> bytes:
    text = text.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _unreadable() from None


def _unreadable() -> ValueError:
    return ValueError(
        "must be whsec_… (a secret), or whpk_…, PEM or base64 (an Ed25519 public key)"
    )
