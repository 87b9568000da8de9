"""Encrypts what of a destination is stored encrypted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.domain.credentials import AUTHORIZATION, sealed_auth, sealed_headers
from app.domain.destinations import Destination, DestinationChanges, DestinationInput
from app.domain.errors import HeadersInvalid, Violation
from app.domain.vault import Vault


def with_sealed_secret(destination: Destination, vault: Vault) -> Destination:
    """Return a destination as it is stored: its secret is encrypted where there is a key."""
    return replace(destination, secret=vault.seal_if_able(destination.secret))


def with_credentials(
    destination: Destination, given: DestinationInput | DestinationChanges, vault: Vault
) -> Destination:
    """Return a destination with the headers and credentials that were sent; null removes them.

    Raises:
        EncryptionKeyMissing: there is no key to encrypt them with.
        HeadersInvalid: names every header that cannot be sent.
    """
    fields: dict[str, Any] = {}
    if "headers" in given.model_fields_set:
        fields |= sealed_headers(given.headers or {}, vault)
    if "auth" in given.model_fields_set:
        fields |= sealed_auth(given.auth, vault)
    result = replace(destination, **fields)
    names = {name.lower() for name in result.header_names}
    if result.auth_type is not None and AUTHORIZATION in names:
        detail = "cannot stand beside a header Authorization; one of the two must go"
        raise HeadersInvalid([Violation("/auth", detail)])
    return result
