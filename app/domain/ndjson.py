"""Lines of newline-delimited JSON, whatever pieces they arrive in, in bounded memory.

Accepts what people's tools write: a byte order mark, CRLF, blank lines, a missing last newline.
"""

from __future__ import annotations

from collections.abc import Iterator

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
WHITESPACE = b" \t\r"


class TooLong:
    """Stands for a line that was longer than allowed; its bytes were dropped on the way."""


TOO_LONG = TooLong()
Line = bytes | TooLong


class LineSplitter:
    """Cuts a stream of bytes into lines.

    Attributes:
        number: of the last line returned, counted from 1, blank lines included.
    """

    def __init__(self, max_bytes: int) -> None:
        """Begin a stream.

        Args:
            max_bytes: longest line, without its ending; of longer ones nothing is kept.
        """
        self.number = 0
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[tuple[int, Line]]:
        """Yield the lines that a piece completes, with their numbers; none for blank lines."""
        lines = piece.split(b"\n")
        last = lines.pop()
        for line in lines:
            self._keep(line)
            yield from self._complete()
        self._keep(last)

    def end(self) -> Iterator[tuple[int, Line]]:
        """Yield what stands behind the last newline, if anything does."""
        if self._size:
            yield from self._complete()

    def _keep(self, part: bytes) -> None:
        if part:
            self._size += len(part)
            # One byte more than allowed may be the CR of CRLF.
            if self._size <= self._max_bytes + 1:
                self._parts.append(part)
            else:
                self._parts.clear()

    def _complete(self) -> Iterator[tuple[int, Line]]:
        parts, size = self._parts, self._size
        self._parts, self._size = [], 0
        self.number += 1
        if size > self._max_bytes + 1:
            yield self.number, TOO_LONG
            return
        line = parts[0] if len(parts) == 1 else b"".join(parts)
        if self.number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        line = line.strip(WHITESPACE)
        if len(line) > self._max_bytes:
            yield self.number, TOO_LONG
        elif line:
            yield self.number, line
