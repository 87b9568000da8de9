"""CloudEvents 1.0 as documents.

An event's data is the document's content, its other members are kept under ``attributes``. The
document's id comes from ``source`` and ``id``, which together name an event (CloudEvents 1.0,
section 3.1.1): an event that is sent again is an update of its document and not a second one.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from app.domain.errors import InvalidInput, Violation

REQUIRED = ("id", "source", "type")
ATTRIBUTE = "cloudevent"
"""Under this name the event's members stand among the document's attributes."""
NAMESPACE = uuid.UUID("5d0c4a51-6a3b-5c0e-9c55-0f6f3d0c1e01")
"""Of the UUIDv5 that a source and an id make."""
HEADER_PREFIX = b"ce-"


def from_structured(event: Any) -> dict[str, Any]:
    """Return the document of an event in JSON form.

    Args:
        event: parsed JSON.

    Raises:
        InvalidInput: names the members that are wrong.
    """
    if not isinstance(event, dict):
        raise _invalid("", "A CloudEvent is a JSON object.")
    context = {name: value for name, value in event.items() if name not in {"data", "data_base64"}}
    if "data" in event and "data_base64" in event:
        raise _invalid("/data_base64", "An event has data or data_base64, not both.")
    if "data_base64" in event:
        content = _decoded(event["data_base64"])
    elif event.get("data") is None:
        raise _invalid("/data", "The event has no data, so there is nothing to classify.")
    else:
        data = event["data"]
        content = data if isinstance(data, str) else orjson.dumps(data).decode()
    return _document(context, content, "/data")


def from_binary(headers: Mapping[bytes, bytes], body: bytes) -> dict[str, Any]:
    """Return the document of an event whose members are HTTP headers and whose data is the body.

    Args:
        headers: of the request, names in lower case.
        body: of the request.

    Raises:
        InvalidInput: names the headers that are wrong.
    """
    context: dict[str, Any] = {}
    for header, value in headers.items():
        if header.startswith(HEADER_PREFIX):
            name = header.removeprefix(HEADER_PREFIX).decode("latin-1")
            try:
                # Percent-encoded UTF-8 (HTTP protocol binding, section 3.1.3.2).
                context[name] = unquote(value.decode("latin-1"), errors="strict")
            except UnicodeDecodeError:
                raise _invalid(f"/{name}", "This is not percent-encoded UTF-8.") from None
    if b"content-type" in headers:
        context["datacontenttype"] = headers[b"content-type"].decode("latin-1")
    try:
        content = body.decode()
    except UnicodeDecodeError as error:
        raise _invalid("", f"The data is not UTF-8 (byte {error.start}).") from None
    return _document(context, content, "")


def _document(context: dict[str, Any], content: str, place: str) -> dict[str, Any]:
    violations = []
    if context.get("specversion") != "1.0":
        violations.append(Violation("/specversion", "Only CloudEvents 1.0 are understood."))
    for name in REQUIRED:
        value = context.get(name)
        if not isinstance(value, str) or not value:
            violations.append(Violation(f"/{name}", "A string that is not empty is required."))
    if not content:
        violations.append(
            Violation(place, "The event has no data, so there is nothing to classify.")
        )
    if violations:
        raise InvalidInput(violations)
    return {
        "id": str(uuid.uuid5(NAMESPACE, f"{context['source']}\n{context['id']}")),
        "content": content,
        "attributes": {ATTRIBUTE: context},
    }


def _decoded(data: Any) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, TypeError, ValueError):
        raise _invalid("/data_base64", "This is not base64 of UTF-8 text.") from None


def _invalid(pointer: str, detail: str) -> InvalidInput:
    return InvalidInput([Violation(pointer, detail)])
