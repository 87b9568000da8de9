"""Errors to problems: the one place that knows which HTTP status an error has."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from app.api.problems import problem, request_id_of
from app.domain import errors
from app.domain.errors import DocyardError, InvalidInput, Unavailable, Violation
from app.domain.text import escape

LOG = structlog.get_logger(__name__)

STATUS: dict[type[DocyardError], int] = {
    errors.DocyardError: 500,
    errors.InvalidInput: 422,
    errors.BatchTooLong: 413,
    errors.DestinationUrlRefused: 422,
    errors.EncodingUnsupported: 415,
    errors.ExceedsQueue: 413,
    errors.FilterInvalid: 422,
    errors.FormatUnsupported: 415,
    errors.NotFound: 404,
    errors.BatchNotFound: 404,
    errors.DocumentNotFound: 404,
    errors.DestinationNotFound: 404,
    errors.Conflict: 409,
    errors.DestinationKeyTaken: 409,
    errors.Unavailable: 503,
    errors.QueueUnavailable: 503,
    errors.QueueFull: 503,
    errors.DurabilityInsufficient: 503,
    errors.DatabaseUnavailable: 503,
    errors.WorkerSilent: 503,
    errors.SignatureInvalid: 401,
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
    """Return the JSON pointer of a place as Pydantic names it."""
    return "".join(f"/{escape(str(part))}" for part in location)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, DocyardError)  # noqa: S101  (registered for nothing else)
        return answer(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101  (likewise)
        # Behind "body" begins the place in the JSON; a JSON error's place is a byte offset.
        violations = [
            Violation(
                "" if one["type"] == "json_invalid" else pointer(one["loc"][1:]), str(one["msg"])
            )
            for one in error.errors()
        ]
        return answer(request, InvalidInput(violations))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  (likewise)
        return problem(
            error.status_code,
            CODES.get(error.status_code, "http_error"),
            str(error.detail),
            request_id=request_id_of(request),
            headers=error.headers,
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
