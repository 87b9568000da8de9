"""Errors to problems: the one place that knows which HTTP status an error has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match

from app.api.problems import problem, request_id_of
from app.domain import errors
from app.domain.errors import DocyardError, InvalidInput, Unavailable, Violation
from app.domain.text import escape

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
NOT_SAID_TO_BE_JSON = "The body is JSON; say so: `Content-Type: application/json`."
UNREADABLE = "This is no JSON in UTF-8, or nested too deep, or has a number too long to be read."
LOG = structlog.get_logger(__name__)

STATUS: dict[type[DocyardError], int] = {
    errors.DocyardError: 500,
    errors.InvalidInput: 422,
    errors.BatchTooLong: 413,
    errors.DestinationUrlRefused: 422,
    errors.EncodingUnsupported: 415,
    errors.EncryptionKeyMissing: 422,
    errors.ExceedsQueue: 413,
    errors.FilterInvalid: 422,
    errors.DestinationInvalid: 422,
    errors.FormatUnsupported: 415,
    errors.HeadersInvalid: 422,
    errors.NotFound: 404,
    errors.BatchNotFound: 404,
    errors.DeadLetterNotFound: 404,
    errors.DeliveryNotFound: 404,
    errors.DocumentNotFound: 404,
    errors.DestinationNotFound: 404,
    errors.RejectedNotFound: 404,
    errors.ReplayNotFound: 404,
    errors.Conflict: 409,
    errors.DeliveryNotReplayable: 409,
    errors.DestinationKeyTaken: 409,
    errors.NotRetryable: 409,
    errors.SecretsOverlap: 409,
    errors.Unavailable: 503,
    errors.QueueUnavailable: 503,
    errors.QueueUnreadable: 503,
    errors.QueueFull: 503,
    errors.DurabilityInsufficient: 503,
    errors.DatabaseUnavailable: 503,
    errors.SchemaBehind: 503,
    errors.WorkerSilent: 503,
    errors.SignatureInvalid: 401,
    errors.Undecryptable: 500,
    errors.RouterFailed: 500,
    errors.ModelUnusable: 500,
    errors.SettingsInvalid: 500,
}
CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def answer(connection: HTTPConnection, error: DocyardError) -> Response:
    """Return the problem of one of our errors."""
    headers = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, errors.DocumentNotFound):
        headers["Retry-After"] = "1"
    return problem(
        STATUS[type(error)],
        error.code,
        str(error),
        request_id=request_id_of(connection),
        violations=error.violations if isinstance(error, InvalidInput) else (),
        headers=headers,
    )


def pointer(location: Sequence[str | int]) -> str:
    """Return the JSON pointer of a place; what is not Unicode in it becomes question marks."""
    return "".join(f"/{escape(str(part).encode(errors='replace').decode())}" for part in location)


def steps(sent: Any, location: Sequence[str | int], kind: str) -> Iterator[str | int]:
    """Yield the steps to a place in what was sent; Pydantic adds those of its own, as for unions.

    Args:
        sent: parsed JSON.
        location: of the fault, as Pydantic names it.
        kind: of the fault, likewise.
    """
    for number, step in enumerate(location, 1):
        if isinstance(sent, dict) and step in sent:
            sent = sent[step]
        elif isinstance(sent, list) and step in range(len(sent)):
            sent = sent[int(step)]
        elif kind != "missing" or number < len(location):
            continue
        yield step


def _place(body: Any, error: dict[str, Any]) -> Sequence[str | int]:
    kind, (part, *location) = error["type"], error["loc"]
    if kind == "json_invalid":
        return ()
    return list(steps(body, location, kind)) if part == "body" else location


def _allowed(request: Request) -> str:
    """Return the methods of a path; the framework names those of the first route that has it."""
    return ", ".join(
        method
        for method in METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    )


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, DocyardError)  # noqa: S101  (registered for nothing else)
        return answer(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101  (likewise)
        # Behind "body" begins the place in the JSON; a JSON error's place is a byte offset.
        violations = [
            Violation(pointer(list(_place(error.body, one))), str(one["msg"]))
            for one in error.errors()
        ]
        if isinstance(error.body, bytes):  # FastAPI did not look into it
            violations = [Violation("", NOT_SAID_TO_BE_JSON)]
        return answer(request, InvalidInput(violations))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  (likewise)
        if error.status_code == HTTPStatus.BAD_REQUEST:  # FastAPI's, where reading a body failed
            return answer(request, InvalidInput([Violation("", UNREADABLE)]))
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": _allowed(request)}
        return problem(
            error.status_code,
            CODES.get(error.status_code, "http_error"),
            str(error.detail),
            request_id=request_id_of(request),
            headers=headers,
        )

    async def unexpected(request: Request, error: Exception) -> Response:
        request_id = request_id_of(request)
        LOG.error("request.failed", request_id=request_id, path=request.url.path, exc_info=error)
        return problem(
            500,
            "internal_error",
            "Something went wrong here; the log has the details under this request id.",
            request_id=request_id,
        )

    app.add_exception_handler(DocyardError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)
