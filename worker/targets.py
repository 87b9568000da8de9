"""Where requests go and how they are signed: prepared once for many of them."""

from __future__ import annotations

from dataclasses import dataclass

from yarl import URL

from app import __version__
from app.domain.cloudevents_out import DEFAULT_SOURCE
from app.domain.destinations import Body, Destination
from app.domain.envelopes import Payload
from app.domain.signing import (
    ID_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    decode_secret,
    sign_with_key,
    signed_bytes,
)
from worker.connections import Origin

_HEADERS = (
    f"User-Agent: Docyard/{__version__}\r\n"
    "Accept: */*\r\n"
    # A compressed answer saves nothing, since little of it is read.
    "Accept-Encoding: identity\r\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A destination, prepared for requests.

    Attributes:
        head: the part of a request's head that is the same for all.
        source: of CloudEvents.
    """

    origin: Origin
    head: str
    key: bytes
    timeout_seconds: float
    body: Body
    source: str

    def request(self, webhook_id: str, timestamp: int, payload: Payload) -> bytes:
        """Return the bytes of a signed request."""
        body, content_type, headers = payload
        signature = sign_with_key(self.key, signed_bytes(webhook_id, timestamp, body))
        head = (
            f"{self.head}Content-Type: {content_type}\r\n{headers}"
            f"{ID_HEADER}: {webhook_id}\r\n{TIMESTAMP_HEADER}: {timestamp}\r\n"
            f"{SIGNATURE_HEADER}: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Targets:
    """Prepares destinations."""

    def __init__(self, source: str = DEFAULT_SOURCE) -> None:
        """Keep what all have in common.

        Args:
            source: of CloudEvents: who sends.
        """
        self._source = source

    def of(self, destination: Destination) -> Target:
        """Prepare a destination."""
        url = URL(destination.url)
        tls = url.scheme == "https"
        return Target(
            origin=Origin(url.raw_host or "", url.port or (443 if tls else 80), tls),
            head=f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n"
            + _HEADERS,
            key=decode_secret(destination.secret),
            timeout_seconds=destination.timeout_seconds,
            body=destination.body,
            source=self._source,
        )
