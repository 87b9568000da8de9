"""How a bulk upload is answered: a summary at its end, or a line for each line as it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.bodies import ClientGone
from app.api.problems import problem, request_id_of
from app.api.upload import Answers, LineResult, Stopped

MAX_ERRORS = 1_000
BEGIN_SECONDS = 4.0
"""Results begin within five seconds, whatever the queue does."""
UNREAD_SECONDS = 30.0
"""A client that reads no results for so long is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The end of an upload.

    Attributes:
        lines: number of the last line whose result is certain.
        stopped: why it ended early, None when it did not.
    """

    batch_id: UUID
    lines: int
    accepted: int
    rejected: int
    stopped: Stopped | None

    @property
    def members(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {
            "id": str(self.batch_id),
            "lines": self.lines,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "complete": self.stopped is None,
        }


class BulkAnswers(Answers, Protocol):
    """Answers one upload."""

    async def finish(self, summary: Summary) -> None:
        """Send what is left to be said."""

    def close(self) -> None:
        """Stop whatever still runs."""


class SummaryAnswer:
    """Answers once, at the end, with the counts and the first errors."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keep the request."""
        self._request = (scope, receive, send)
        self._errors: list[dict[str, Any]] = []

    async def report(self, results: Sequence[LineResult]) -> None:
        """Keep the first errors."""
        for result in results:
            if result.id is None and len(self._errors) < MAX_ERRORS:
                self._errors.append(_error(result))

    async def finish(self, summary: Summary) -> None:
        """Answer 202, or a problem with the same members when it ended early or took nothing."""
        scope, receive, send = self._request
        members = {**summary.members, "errors": self._errors}
        location = f"/batches/{summary.batch_id}"
        stopped = summary.stopped
        if stopped is None and summary.rejected and not summary.accepted:
            stopped = Stopped(422, "no_line_accepted", "No line is a valid document.")
        if stopped is None:
            response = Response(
                orjson.dumps(members), 202, {"Location": location}, media_type="application/json"
            )
        else:
            headers = {"Location": location, "Connection": "close"}
            if stopped.retry_after_seconds is not None:
                headers["Retry-After"] = str(stopped.retry_after_seconds)
            request_id = request_id_of(Request(scope))
            response = problem(
                stopped.status,
                stopped.code,
                stopped.detail,
                request_id=request_id,
                headers=headers,
                members=members,
            )
        await response(scope, receive, send)

    def close(self) -> None:
        """Nothing runs."""


class LineAnswers:
    """Answers with a line of JSON for each line, as soon as its result is certain.

    A client must read while it writes: results that nobody reads hold the upload up.
    """

    def __init__(self, batch_id: UUID, send: Send) -> None:
        """Keep the request; the answer begins with the first result, or in four seconds."""
        self._send = send
        self._headers = [
            (b"content-type", b"application/x-ndjson"),
            (b"location", f"/batches/{batch_id}".encode()),
        ]
        self._begun: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(BEGIN_SECONDS, self._begin)

    async def report(self, results: Sequence[LineResult]) -> None:
        """Send a line for each result.

        Raises:
            ClientGone: it does not read them.
        """
        await self._write(b"".join(orjson.dumps(_line(one)) + b"\n" for one in results))

    async def finish(self, summary: Summary) -> None:
        """Send the summary as the last line."""
        members: dict[str, Any] = summary.members
        if summary.stopped is not None:
            members["code"], members["detail"] = summary.stopped.code, summary.stopped.detail
        await self._write(orjson.dumps({"summary": members}) + b"\n")
        await self._send({"type": "http.response.body", "body": b""})

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _begin(self) -> asyncio.Task[None]:
        if self._begun is None:
            self._timer.cancel()
            self._begun = asyncio.ensure_future(self._start())
        return self._begun

    async def _start(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})

    async def _write(self, lines: bytes) -> None:
        await self._begin()
        message = {"type": "http.response.body", "body": lines, "more_body": True}
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise ClientGone from None


def _line(result: LineResult) -> Mapping[str, Any]:
    if result.id is not None:
        return {"line": result.line, "id": str(result.id), "status": "accepted"}
    return {"status": "rejected", **_error(result)}


def _error(result: LineResult) -> dict[str, Any]:
    return {
        "line": result.line,
        "pointer": result.pointer,
        "code": result.code,
        "detail": result.detail,
    }
