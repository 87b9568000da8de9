"""Headers and credentials that a destination wants: what may be given, and how it is stored.

They are encrypted at once and never shown again: the API names the headers and the kind of
authentication, nothing more.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.domain.errors import HeadersInvalid, Violation
from app.domain.text import escape, text_fault

if TYPE_CHECKING:
    # Whoever has a vault has imported cryptography; the form of a destination does not need it.
    from app.domain.vault import Vault

MAX_HEADERS = 50
MAX_HEADER_BYTES = 8 * 1024
"""All names and values together: many servers refuse a head of more than 8 or 16 KiB."""
MAX_NAME_LENGTH = 100
MAX_CREDENTIAL_LENGTH = 4096

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = frozenset({"accept-encoding", "expect", "host"})
_HOP_BY_HOP = frozenset(
    {"connection", "http2-settings", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_OUR_PREFIXES = ("content-", "webhook-", "ce-")
_HOP_BY_HOP_PREFIX = "proxy-"
AUTHORIZATION = "authorization"


def _without_controls(value: str) -> str:
    if fault := text_fault(value):
        raise ValueError(fault)
    if any(character < " " or character == "\x7f" for character in value):
        message = "has a control character"
        raise ValueError(message)
    return value


def _user_name(value: str) -> str:
    if ":" in value:
        message = "has a colon, which ends the user name (RFC 7617)"
        raise ValueError(message)
    return _without_controls(value)


def _token(value: str) -> str:
    if not all("!" <= character <= "~" for character in value):
        message = "has a character that is not visible ASCII"
        raise ValueError(message)
    return value


class BasicAuth(BaseModel):
    """A user name and a password (RFC 7617, in UTF-8)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", hide_input_in_errors=True)

    type: Literal["basic"]
    username: Annotated[
        str, Field(max_length=MAX_CREDENTIAL_LENGTH, repr=False), AfterValidator(_user_name)
    ]
    password: Annotated[
        str,
        Field(max_length=MAX_CREDENTIAL_LENGTH, repr=False, json_schema_extra={"writeOnly": True}),
        AfterValidator(_without_controls),
    ]

    def header(self) -> str:
        """Return the value of ``Authorization``."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class BearerAuth(BaseModel):
    """A token (RFC 6750)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", hide_input_in_errors=True)

    type: Literal["bearer"]
    token: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_CREDENTIAL_LENGTH,
            repr=False,
            json_schema_extra={"writeOnly": True},
        ),
        AfterValidator(_token),
    ]

    def header(self) -> str:
        """Return the value of ``Authorization``."""
        return f"Bearer {self.token}"


Auth = Annotated[
    Annotated[BasicAuth | BearerAuth, Field(discriminator="type")] | None,
    Field(description="Credentials for `Authorization`; encrypted, and never shown again."),
]
Headers = Annotated[
    dict[str, str] | None,
    Field(
        repr=False,
        json_schema_extra={"writeOnly": True},
        description="Sent with every request; encrypted, and never shown again. Not those that"
        " belong to the connection, to the body or to the webhook.",
    ),
]


def sealed_headers(headers: Mapping[str, str], vault: Vault) -> dict[str, Any]:
    """Return the fields of a destination that hold its headers.

    Raises:
        EncryptionKeyMissing: there is no key to encrypt them with.
        HeadersInvalid: names every header that cannot be sent.
    """
    if violations := list(_faults(headers)):
        raise HeadersInvalid(violations)
    if not headers:
        return {"header_names": [], "sealed_headers": None}
    sealed = vault.seal(orjson.dumps(dict(headers)).decode(), "/headers")
    return {"header_names": list(headers), "sealed_headers": sealed}


def sealed_auth(auth: BasicAuth | BearerAuth | None, vault: Vault) -> dict[str, Any]:
    """Return the fields of a destination that hold its credentials.

    Raises:
        EncryptionKeyMissing: there is no key to encrypt them with.
    """
    if auth is None:
        return {"auth_type": None, "sealed_auth": None}
    return {"auth_type": auth.type, "sealed_auth": vault.seal(auth.header(), "/auth")}


def header_lines(
    sealed: str | None, sealed_authorization: str | None, vault: Vault
) -> dict[str, str]:
    """Return each header's line by its name in lower case, line end included.

    Raises:
        Undecryptable: no key fits.
    """
    lines = {}
    if sealed is not None:
        headers: dict[str, str] = orjson.loads(vault.open(sealed))
        lines = {name.lower(): f"{name}: {value}\r\n" for name, value in headers.items()}
    if sealed_authorization is not None:
        lines[AUTHORIZATION] = f"Authorization: {vault.open(sealed_authorization)}\r\n"
    return lines


def _faults(headers: Mapping[str, str]) -> Iterator[Violation]:
    if len(headers) > MAX_HEADERS:
        yield Violation("/headers", f"has more than {MAX_HEADERS} headers")
        return
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADER_BYTES:
        yield Violation("/headers", f"has more than {MAX_HEADER_BYTES} characters in all")
    seen: set[str] = set()
    for name, value in headers.items():
        lowered = name.lower()
        fault = _name_fault(name, lowered) or _value_fault(value)
        if lowered in seen:
            fault = "is there twice: names differ by more than their case"
        seen.add(lowered)
        if fault:
            yield Violation(f"/headers/{_shown(name)}", fault)


def _name_fault(name: str, lowered: str) -> str | None:
    if not _TOKEN.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        return f"is not the name of a header: up to {MAX_NAME_LENGTH} letters, digits and hyphens"
    if lowered in _HOP_BY_HOP or lowered.startswith(_HOP_BY_HOP_PREFIX):
        return "belongs to the connection, which Docyard keeps"
    if lowered in _OURS or lowered.startswith(_OUR_PREFIXES):
        return "is set by Docyard itself"
    return None


def _value_fault(value: str) -> str | None:
    if any(character != "\t" and (character < " " or character == "\x7f") for character in value):
        return "has a line break or another control character"
    if not value.isascii():
        return "has a character outside ASCII"
    if value != value.strip():
        return "begins or ends with a space"
    return None


def _shown(name: str) -> str:
    return escape(name[:MAX_NAME_LENGTH].encode(errors="replace").decode())
