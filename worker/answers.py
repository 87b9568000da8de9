"""What is kept of an answer: some headers and the beginning of the body, as text.

Receivers answer any bytes. What is no UTF-8 is replaced, and so is NUL, which Postgres stores in no
text.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import orjson

from app.domain.text import clean
from worker.exchange import Answer

BODY_CAP = 2 * 1024
"""Most bytes kept of an answer's body, after decompression."""
HEADERS_CAP = 4 * 1024
SUCCESS_HEADERS_CAP = 1024
"""Characters of header names and values, together. Successes are many, and looked at seldom."""
FIRST_FAILURE = 300


class KeptHeaders(NamedTuple):
    """The headers of an answer as a JSON object, and its ``content-encoding``, "" without one."""

    json: str
    encoding: str


def kept_headers(answer: Answer) -> KeptHeaders:
    """Return the headers up to a cap; those behind it are left out."""
    cap = SUCCESS_HEADERS_CAP if answer.status < FIRST_FAILURE else HEADERS_CAP
    return _kept(tuple(answer.headers), cap)


# A receiver's headers differ by their date alone, second by second.
@lru_cache(maxsize=64)
def _kept(headers: Sequence[tuple[bytes, bytes]], room: int) -> KeptHeaders:
    kept: dict[str, str] = {}
    for raw_name, raw_value in headers:
        room -= len(raw_name) + len(raw_value)
        if room < 0:
            break
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if "\0" in value:
            value = value.replace("\0", "\ufffd")
        kept[name] = f"{kept[name]}, {value}" if name in kept else value
    encoding = next((v for k, v in headers if k.lower() == b"content-encoding"), b"")
    return KeptHeaders(orjson.dumps(kept).decode(), encoding.decode("latin-1").strip().lower())


def kept_body(answer: Answer, encoding: str) -> str:
    """Return the beginning of a body; ``encoding`` is that of its headers."""
    body = answer.body
    if not body:
        return ""
    if encoding in {"gzip", "x-gzip", "deflate"}:
        body = _inflated(body)
    elif encoding not in {"", "identity"}:
        # Nobody asked for it, and what is not unfolded cannot be a bomb.
        return f"(a body in {encoding})"
    return body[:BODY_CAP].decode(errors="replace").replace("\0", "\ufffd")


def _inflated(body: bytes) -> bytes:
    # With a header of gzip or zlib, or without one, as some understand "deflate".
    for window_bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        # The bound is on what comes out: a kilobyte can unfold to a megabyte.
        with contextlib.suppress(zlib.error):
            return zlib.decompressobj(wbits=window_bits).decompress(body, BODY_CAP)
    return b""


def describe(answer: Answer, body: str) -> str:
    """Return an answer in a line: status, reason and the beginning of its body."""
    reason = f"HTTP {answer.status} {answer.reason.decode('latin-1')}".rstrip()
    excerpt = " ".join(body.split())
    return clean(f"{reason}: {excerpt}" if excerpt else reason)
