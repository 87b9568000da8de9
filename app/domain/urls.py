"""Which URLs destinations may have, by their form alone.

What a host's name resolves to is judged when a connection is made (``addresses.py``). Here a URL
must be one that every parser reads in the same way, since the ambiguous ones are how such guards
are deceived.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

import idna

from app.domain.errors import DestinationUrlRefused
from app.domain.text import text_fault

MAX_URL_LENGTH = 2048
MAX_HOST_LENGTH = 253
MAX_PORT = 65535

_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_BRACKETED = re.compile(r"\[[^\[\]]*\](:[0-9]+)?\Z")
# The URL standard reads a host as IPv4 when its last label is a number, in any base.
_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)\Z")


def normalised_url(url: str) -> str:
    """Return the URL as it will be called: lower-case scheme and ASCII host, a path.

    Raises:
        DestinationUrlRefused: Docyard will not call this; says why.
    """
    if len(url) > MAX_URL_LENGTH:
        raise DestinationUrlRefused(f"is longer than {MAX_URL_LENGTH} characters")
    if _UNSAFE.search(url):
        raise DestinationUrlRefused("contains a space, a control character or a backslash")
    if fault := text_fault(url):
        raise DestinationUrlRefused(fault)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DestinationUrlRefused(f"is not a valid URL: {error}") from None
    if parts.scheme not in {"http", "https"}:
        raise DestinationUrlRefused("must begin with http:// or https://")
    if "@" in parts.netloc:
        raise DestinationUrlRefused("must not carry a user name or password")
    if "#" in url:
        raise DestinationUrlRefused("must not have a fragment (#…)")
    if port == 0 or parts.netloc.endswith(":"):
        raise DestinationUrlRefused(f"needs a port between 1 and {MAX_PORT}, or none")
    host = _normalised_host(parts)
    netloc = host if port is None else f"{host}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))


def _normalised_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host:
        raise DestinationUrlRefused("has no host")
    if "[" in parts.netloc:
        if not _BRACKETED.match(parts.netloc):
            raise DestinationUrlRefused("has something beside its IPv6 address")
        return _ipv6_literal(host)
    name = host if host.isascii() else _to_ascii(host)
    if _NUMBER.match(name.rstrip(".").rpartition(".")[2]):
        return _ipv4_literal(name)
    labels = name.removesuffix(".").split(".")
    if len(name) > MAX_HOST_LENGTH or not all(_LABEL.match(label) for label in labels):
        raise DestinationUrlRefused("has a host that is not a valid name")
    return name


def _to_ascii(host: str) -> str:
    # Mapped first (UTS 46), because full-width digits and ideographic dots become an address.
    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise DestinationUrlRefused("has a host that is not a valid name") from None


def _ipv4_literal(host: str) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        reason = "writes an IPv4 address in an ambiguous way; use four decimal numbers"
        raise DestinationUrlRefused(reason) from None


def _ipv6_literal(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        raise DestinationUrlRefused("has an invalid IPv6 address") from None
    if address.scope_id is not None:
        raise DestinationUrlRefused("names a network interface in its IPv6 address")
    if address.ipv4_mapped is not None:
        raise DestinationUrlRefused("hides an IPv4 address in an IPv6 address")
    return f"[{address}]"
