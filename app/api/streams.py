"""Request bodies as streams: silence is noticed, and what was compressed is inflated in pieces."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Iterator

from starlette.types import Receive

from app.api.bodies import ClientGone

PIECE_BYTES = 64 * 1024
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
"""Tells zlib to read the kind of header off the data."""


class Idle(Exception):
    """Nothing has come for too long."""


class BrokenStream(Exception):
    """The compressed data is damaged or ends early."""


async def pieces(
    receive: Receive, *, pause_seconds: float, idle_seconds: float
) -> AsyncGenerator[bytes, None]:
    """Yield a request's body as it arrives, and ``b""`` when the client makes a pause, or may.

    Args:
        receive: of the request.
        pause_seconds: of silence after which ``b""`` is yielded, once: time to pass on what there
            is instead of waiting for more.
        idle_seconds: of silence after which the stream is given up.

    Raises:
        ClientGone: the client left before the end of its body.
        Idle: it is there and sends nothing.
    """
    more = True
    while more:
        waiting = asyncio.ensure_future(receive())
        try:
            done, _ = await asyncio.wait((waiting,), timeout=pause_seconds)
            if not done:
                yield b""
                done, _ = await asyncio.wait((waiting,), timeout=idle_seconds - pause_seconds)
            if not done:
                raise Idle
        finally:
            if not waiting.done():
                waiting.cancel()
        message = waiting.result()
        if message["type"] == "http.disconnect":
            raise ClientGone
        more = message.get("more_body", False)
        if (body := message.get("body", b"")) or more:
            yield body


class Inflater:
    """Inflates gzip, also of several members behind each other."""

    def __init__(self) -> None:
        """Begin a stream."""
        self._member = zlib.decompressobj(GZIP_OR_ZLIB)
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what data inflates to, a bounded piece at a time.

        Raises:
            BrokenStream: it is not gzip, or damaged.
        """
        while True:
            if self._member.eof:
                self._member = zlib.decompressobj(GZIP_OR_ZLIB)
            self._begun = True
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise BrokenStream(str(error)) from None
            if piece:
                yield piece
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            # A full piece may have left output behind, without any input.
            if not data and (self._member.eof or len(piece) < PIECE_BYTES):
                return

    def end(self) -> None:
        """Hear that nothing more comes.

        Raises:
            BrokenStream: there should have been more.
        """
        if self._begun and not self._member.eof:
            message = "the compressed data ends early"
            raise BrokenStream(message)
