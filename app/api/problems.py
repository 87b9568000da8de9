"""Problem details (RFC 9457): the form of every error that this API answers."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import HTTPConnection
from starlette.responses import Response

from app.domain.errors import Violation

MEDIA_TYPE = "application/problem+json"
TYPES = "https://docyard.readthedocs.io/problems#"
"""Each problem's ``type`` names its section in ``docs/problems.md``."""
MAX_VIOLATIONS = 50


def problem(  # noqa: PLR0913  (all but three may be left out)
    status: int,
    code: str,
    detail: str,
    *,
    request_id: str,
    violations: Sequence[Violation] = (),
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """Return a problem document.

    Args:
        status: HTTP status.
        code: stable and machine-readable.
        detail: one sentence for people; never an input's content.
        request_id: also in the log, where there is an entry.
        violations: the places at fault.
        headers: further response headers, such as ``Retry-After``.
        members: further members of the document (RFC 9457, section 3.2).
    """
    body: dict[str, Any] = {
        "type": TYPES + code.replace("_", "-"),
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **(members or {}),
    }
    if violations:
        body["errors"] = [
            {"pointer": one.pointer, "detail": one.detail} for one in violations[:MAX_VIOLATIONS]
        ]
    return Response(
        orjson.dumps(body),
        status,
        media_type=MEDIA_TYPE,
        headers={**(headers or {}), "X-Request-Id": request_id},
    )


def request_id_of(connection: HTTPConnection) -> str:
    """Return the id that the client or a proxy gave, or a new one."""
    given = connection.headers.get("x-request-id", "")
    if given and len(given) <= 200 and given.isascii() and given.isprintable():  # noqa: PLR2004  (ample)
        return given
    return uuid.uuid4().hex
