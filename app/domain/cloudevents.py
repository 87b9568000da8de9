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
from app.domain.json_arrays import member
from app.domain.text import json_faults, text_fault

REQUIRED = ("id", "source", "type")
ATTRIBUTE = "cloudevent"
"""Under this name the event's members stand among the document's attributes."""
NAMESPACE = uuid.UUID("5d0c4a51-6a3b-5c0e-9c55-0f6f3d0c1e01")
"""Of the UUIDv5 that a source and an id make."""
HEADER_PREFIX = b"ce-"


def from_structured(sent: bytes) -> dict[str, Any]:
    """Return the document of an event in JSON form.

    Args:
        sent: the event. Data that is no string becomes the content as it stands there.

    Raises:
        InvalidInput: names the members that are wrong.
    """
    event = _parsed(sent)
    if not isinstance(event, dict):
        raise _invalid("", "A CloudEvent is a JSON object.")
    context = {name: value for name, value in event.items() if name not in {"data", "data_base64"}}
    data, encoded = event.get("data"), event.get("data_base64")
    if encoded is not None:
        if data is not None:
            raise _invalid("/data_base64", "An event has data or data_base64, not both.")
        try:
            content = _text(_decoded(encoded), context.get("datacontenttype"))
        except InvalidInput as error:
            raise error.within("/data_base64") from None
        return _document(context, content, "/data_base64")
    if data is None or isinstance(data, str):
        return _document(context, data or "", "/data")
    return _document(context, member(sent, "data").decode(), "/data")


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
    return _document(context, _text(body, context.get("datacontenttype")), "")


def _document(context: dict[str, Any], content: str, place: str) -> dict[str, Any]:
    # Under `attributes` they stand one level deeper.
    violations = list(json_faults(context, depth=1))
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
    if fault := text_fault(content):
        violations.append(Violation(place, fault))
    if violations:
        raise InvalidInput(violations)
    return {
        "id": str(uuid.uuid5(NAMESPACE, f"{context['source']}\n{context['id']}")),
        "content": content,
        "attributes": {ATTRIBUTE: context},
    }


def _text(data: bytes, content_type: Any) -> str:
    """Return data as text. A JSON string becomes what it says, as it does in an event in JSON form.

    Args:
        data: as it was sent.
        content_type: what it is said to be. What is said to be JSON must be.
    """
    media_type = str(content_type).partition(";")[0].strip().lower()
    if data and media_type.endswith(("/json", "+json")):
        value = _parsed(data)
        if isinstance(value, str):
            return value
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _invalid("", f"The data is not UTF-8 (byte {error.start}).") from None


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _invalid("", f"This is no JSON: {error}.") from None


def _decoded(data: Any) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise _invalid("", "This is not base64.") from None


def _invalid(pointer: str, detail: str) -> InvalidInput:
    return InvalidInput([Violation(pointer, detail)])
