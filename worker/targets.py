"""Where requests go, how they are signed and what they carry: prepared once for many of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from yarl import URL

from app import __version__
from app.domain.batches_out import BatchFormat
from app.domain.cloudevents_out import DEFAULT_SOURCE
from app.domain.credentials import header_lines
from app.domain.destinations import Body, Destination
from app.domain.envelopes import Payload
from app.domain.errors import Undecryptable
from app.domain.rotation import in_force
from app.domain.signing import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    PreparedKey,
    decode_secret,
    signed_bytes,
)
from app.domain.vault import Vault
from app.domain.webhook_keys import decode_secret_key, sign_with_secret_key
from worker.connections import Origin

_HEADERS = {
    "user-agent": f"User-Agent: Docyard/{__version__}\r\n",
    "accept": "Accept: */*\r\n",
    # A compressed answer saves nothing, since little of it is read.
    "accept-encoding": "Accept-Encoding: identity\r\n",
}


class TargetUnusable(Exception):
    """Nothing can be sent to a destination from here; says why."""


@dataclass(frozen=True, slots=True)
class Signer:
    """One key, ready to sign.

    Attributes:
        sign: returns the item of ``webhook-signature`` for the bytes that are signed.
        expires_at: unix seconds, from when on it does not sign.
    """

    sign: Callable[[bytes], str]
    expires_at: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A destination, prepared for requests.

    Attributes:
        head: the part of a request's head that is the same for all.
        signers: current ones first.
        source: of CloudEvents.
        batch_format: of what travels together.
    """

    origin: Origin
    head: str = field(repr=False)
    signers: tuple[Signer, ...] = field(repr=False)
    timeout_seconds: float
    body: Body
    source: str
    batch_format: BatchFormat

    def request(self, webhook_id: str, timestamp: int, payload: Payload) -> bytes:
        """Return the bytes of a signed request."""
        body, content_type, headers = payload
        signed = signed_bytes(webhook_id, timestamp, body)
        signatures = [one.sign(signed) for one in self.signers if timestamp < one.expires_at]
        head = (
            f"{self.head}Content-Type: {content_type}\r\n{headers}"
            f"{ID_HEADER}: {webhook_id}\r\n{TIMESTAMP_HEADER}: {timestamp}\r\n"
            f"{SIGNATURE_HEADER}: {' '.join(signatures)}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Targets:
    """Prepares destinations: decrypts, decodes and joins what every request needs."""

    def __init__(self, vault: Vault | None = None, source: str = DEFAULT_SOURCE) -> None:
        """Keep what all have in common.

        Args:
            vault: decrypts secrets and credentials.
            source: of CloudEvents: who sends.
        """
        self._vault = vault or Vault()
        self._source = source

    def of(self, destination: Destination) -> Target:
        """Prepare a destination.

        Raises:
            TargetUnusable: a secret or a header cannot be decrypted, or is damaged.
        """
        url = URL(destination.url)
        tls = url.scheme == "https"
        return Target(
            origin=Origin(url.raw_host or "", url.port or (443 if tls else 80), tls),
            head=f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n"
            + "".join(self._headers(destination).values()),
            signers=tuple(sorted(self._signers(destination), key=lambda one: -one.expires_at)),
            timeout_seconds=destination.timeout_seconds,
            body=destination.body,
            source=self._source,
            batch_format=batching.format if (batching := destination.batching) else "json",
        )

    def _headers(self, destination: Destination) -> dict[str, str]:
        try:
            own = header_lines(destination.sealed_headers, destination.sealed_auth, self._vault)
        except Undecryptable as error:
            raise TargetUnusable(f"its headers cannot be decrypted: {error.reason}") from error
        return {**_HEADERS, **own}

    def _signers(self, destination: Destination) -> Iterator[Signer]:
        try:
            for version in destination.signatures:
                yield from (
                    self._by_key(destination) if version == "v1a" else self._by_secret(destination)
                )
        except Undecryptable as error:
            raise TargetUnusable(f"what signs cannot be decrypted: {error.reason}") from error
        except ValueError as error:
            raise TargetUnusable(f"what signs is damaged: {error}") from error

    def _by_secret(self, destination: Destination) -> Iterator[Signer]:
        secrets = [(destination.secret, math.inf)]
        # One that has expired may be under a key that is gone, and nobody needs it.
        old_secrets = in_force(destination.old_secrets, datetime.now(UTC))
        secrets += [(old["secret"], old["expires_at"]) for old in old_secrets]
        for stored, expires_at in secrets:
            key = decode_secret(self._vault.open(stored))
            yield Signer(PreparedKey(key).sign, expires_at)

    def _by_key(self, destination: Destination) -> Iterator[Signer]:
        if not destination.webhook_keys:
            raise TargetUnusable("the installation has no webhook key; rotate to make one")
        for one in destination.webhook_keys:
            key = decode_secret_key(self._vault.open(one.secret_key))
            expires_at = math.inf if one.expires_at is None else one.expires_at.timestamp()
            yield Signer(partial(sign_with_secret_key, key), expires_at)
