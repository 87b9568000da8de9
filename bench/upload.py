"""One NDJSON upload: the kernel copies the file into the socket, which leaves both cores alone."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.results import Void

PATH = "/documents/bulk"
ANSWER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Uploaded:
    """When the first byte went out, and when the answer was complete; seconds since 1970."""

    began_at: float
    answered_at: float


def upload(url: str, file: Path, count: int) -> Uploaded:
    """Send a file of NDJSON documents.

    Raises:
        Void: not all of them were accepted.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_SECONDS)
    connection.connect()
    began_at = time.time()
    try:
        connection.putrequest("POST", PATH)
        connection.putheader("Content-Type", "application/x-ndjson")
        connection.putheader("Content-Length", str(file.stat().st_size))
        connection.endheaders()
        # It may answer early, and why stands in the answer.
        with file.open("rb") as stream, suppress(BrokenPipeError, ConnectionResetError):
            connection.sock.sendfile(stream)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    accepted = _accepted(body) if answer.status < http.HTTPStatus.BAD_REQUEST else None
    if accepted != count:
        message = f"bulk: {answer.status}, {accepted} of {count} accepted: {body[:300]!r}"
        raise Void(message)
    return Uploaded(began_at, time.time())


def _accepted(body: bytes) -> int | None:
    try:
        summary = json.loads(body)
    except ValueError:
        return None
    found = summary.get("accepted") if isinstance(summary, dict) else None
    return found if isinstance(found, int) else None
