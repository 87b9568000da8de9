"""One HTTP/1.1 connection: a request goes out, an answer comes back within bounds.

Written by hand on llhttp (the parser of Node.js, through httptools) because the client's own work
was the largest part of a delivery: 44 µs of processor time for a signed request this way, 140 µs
through aiohttp's session (docs/adr/0005-http-client.md).

A request is decided by its status. What comes behind the head of the answer is read to its end, to
a cap or to the deadline, whichever is first, and only the first leaves the connection usable.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from app.domain.attempts import Trace

HEAD_CAP = 64 * 1024
BODY_CAP = 64 * 1024
"""Most bytes read of an answer's body, framing included."""
MOST_HEADERS = 256
"""Kept of an answer: thirteen thousand fit below the cap, and take thirty times their size."""
FIRST_FINAL_STATUS = 200
WITHOUT_BODY = frozenset({204, 304})
"""Statuses whose answers end with their head, whatever it announces (RFC 9112, 6.3)."""


class NoAnswer(ConnectionError):
    """The connection was closed before the head of an answer was complete."""

    def __init__(self) -> None:
        super().__init__("the connection was closed without an answer")


class AnswerUnreadable(ConnectionError):
    """What came is not HTTP, or its head has no end."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the answer is not HTTP: {reason}")


@dataclass(slots=True)
class Answer:
    """What came back; ``body`` may have been cut."""

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> str | None:
        """Return the first header of a name (given in lower case), or None."""
        for key, value in self.headers:
            if key.lower() == name:
                return value.decode("latin-1")
        return None


class Connection(asyncio.Protocol):
    """A connection to a receiver; one exchange at a time."""

    def __init__(self, alive: set[Connection]) -> None:
        """Prepare for a transport.

        Args:
            alive: holds the connection for as long as it stands.
        """
        self._alive = alive
        self.reused = False
        """Whether an exchange was completed on it before."""
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = HttpResponseParser(self)
        self._waiter: asyncio.Future[Answer] | None = None
        self._usable = False
        self._received = 0
        self._first_byte: float | None = None
        self._begin_answer()

    @property
    def usable(self) -> bool:
        """Whether another request may go out on it."""
        return self._usable

    async def exchange(self, request: bytes, deadline: float, trace: Trace) -> Answer:
        """Send a request and return the answer to it.

        Args:
            request: head and body.
            deadline: the loop's time at which waiting ends.
            trace: takes the times.

        Raises:
            TimeoutError: no head of an answer by then.
            NoAnswer: the connection was closed.
            AnswerUnreadable: what came is not HTTP.
        """
        self._begin_answer()
        self._received = 0
        self._first_byte = None
        trace.reused = self.reused
        sent = time.perf_counter()
        self._waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._on_deadline)
        try:
            if self._usable:
                self._transport.write(request)
            else:
                self._break_off(NoAnswer())
            return await self._waiter
        except BaseException:
            self.abort()
            raise
        finally:
            timer.cancel()
            self._waiter = None
            trace.exchanged(sent, self._first_byte)

    def abort(self) -> None:
        """Close at once."""
        self._usable = False
        self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._usable = True
        self._alive.add(self)

    def data_received(self, data: bytes) -> None:
        """Read on, within bounds."""
        if self._waiter is None or self._waiter.done():
            # Nobody asked: not a connection to ask the next question on.
            self.abort()
            return
        if not self._received:
            self._first_byte = time.perf_counter()
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._break_off(AnswerUnreadable("it switches protocols"))
        except HttpParserError as error:
            self._break_off(AnswerUnreadable(str(error) or type(error).__name__))
        else:
            if self._received > (HEAD_CAP + BODY_CAP if self._has_head else HEAD_CAP):
                self._break_off(AnswerUnreadable("its head has no end"))

    def eof_received(self) -> None:
        """Nothing more will come; an answer without a length ends so."""
        self._usable = False
        self._break_off(NoAnswer())

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  (signature)
        """Whoever waits must not wait on."""
        self._usable = False
        self._alive.discard(self)
        self._break_off(NoAnswer())
        # The parser and we refer to each other, so that we stay until the next collection.
        self._begin_answer()

    # httptools

    def on_message_begin(self) -> None:
        """An answer begins; one behind a complete one was not asked for."""
        if self._waiter is None or self._waiter.done():
            self.abort()

    def on_status(self, reason: bytes) -> None:
        """Keep what the receiver calls it."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        if not self._has_head and len(self._headers) < MOST_HEADERS:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The status is known, and with it what is to become of the delivery."""
        self._status = self._parser.get_status_code()
        self._has_head = self._status >= FIRST_FINAL_STATUS

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body."""
        self._body += data

    def on_message_complete(self) -> None:
        """The answer has ended, unless it only announced another (1xx)."""
        if self._has_head:
            self._end(usable=self._parser.should_keep_alive() and self._is_over)
        else:
            self._begin_answer()

    # Ends

    @property
    def _is_over(self) -> bool:
        """Whether nothing of this exchange can get in the way of the next one.

        A receiver may answer before it has read the request, and then read no further; or send the
        body that its status forbids, which would come as the next answer.
        """
        if self._transport.get_write_buffer_size() or len(self._headers) == MOST_HEADERS:
            return False
        return self._status not in WITHOUT_BODY or not any(
            (name.lower() == b"content-length" and value.strip(b"0 \t"))
            or name.lower() == b"transfer-encoding"
            for name, value in self._headers
        )

    def _begin_answer(self) -> None:
        self._status = 0
        self._reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._has_head = False

    def _end(self, *, usable: bool) -> None:
        if self._waiter is None or self._waiter.done():
            return
        self._waiter.set_result(Answer(self._status, self._reason, self._headers, self._body))
        if usable and self._usable:
            self.reused = True
        else:
            self.abort()

    def _break_off(self, error: Exception) -> None:
        """End in the middle: with the answer, where there is as much as a status."""
        if self._has_head:
            self._end(usable=False)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def _on_deadline(self) -> None:
        self._break_off(TimeoutError())
