"""Connections within bounds: how long a request may take to arrive, and how large its head may be.

uvicorn waits for ever for the rest of a head or a body, and takes a head of any size: a few hundred
clients that drip (slow loris) keep what they like. Here one patrol per process looks at all
connections once a second, so that the hot path pays for no timer: a request costs two additions and
two comparisons more.
"""

from __future__ import annotations

import asyncio
import resource
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from app.api.problems import problem
from app.api.upgrades import SteadyParser

if TYPE_CHECKING:
    from app.settings import Settings

LOG = structlog.get_logger(__name__)
ROUND_SECONDS = 1.0
STREAMED = "docyard.streamed"
"""Set in a request's state by a route that bounds the silences of its body itself: what ends it."""
LAST_SECONDS = 10.0
"""For bodies that are still coming when the process is to end; then as much is left to answer."""
LINGER_SECONDS = 5.0
"""For a refused client to read why; then its connection is cut."""
OWN_FILES = 100
"""Descriptors left for ourselves: Postgres, Redis, logs, the listening socket."""
EVICTED_AT_ONCE = 50
"""Idle connections closed in one go where there are too many: one look over all serves several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """What a client may cost before its request is there.

    Attributes:
        header_bytes: of a request's head, its URL included.
        url_bytes: of its path and query.
        read_seconds: from the first byte of a head to its last, and as long may a body be slower
            than it must, or an answer stay unread.
        body_bytes_per_second: that a body must come with, on average.
        connections: at a time.
    """

    header_bytes: int
    url_bytes: int
    read_seconds: float
    body_bytes_per_second: int
    connections: int

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        """Return those of the settings."""
        return cls(
            header_bytes=settings.max_header_bytes,
            url_bytes=settings.max_url_bytes,
            read_seconds=settings.read_timeout_seconds,
            body_bytes_per_second=settings.min_body_bytes_per_second,
            connections=settings.max_connections,
        )


class _Refused(Exception):
    """Ends the parser's work on a request; what is to be answered is kept by the connection."""


class GuardedProtocol(HttpToolsProtocol):
    """A connection that a patrol looks at."""

    def __init__(self, *args: Any, patrol: Patrol, **named: Any) -> None:
        super().__init__(*args, **named)
        self.parser = SteadyParser(self)
        self._patrol = patrol
        self._most_header_bytes = patrol.limits.header_bytes
        self._most_url_bytes = patrol.limits.url_bytes
        self._unclaimed = 0
        """Bytes since the last that were a body's: a head, or the framing between pieces."""
        self._body_bytes = 0
        self._under_way: RequestResponseCycle | None = None
        """The request that is being answered; ``cycle`` is the last that came."""
        self._refusal: bytes | None = None
        self._parting: bytes | None = None
        """What is said behind the answers that are still to come; nothing more is read."""
        # What the patrol waits for, since when, and how far it was then.
        self._awaited: str | None = None
        self._since = 0.0
        self._mark = 0

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has come since the last was answered."""
        if self.cycle is None:
            return self._unclaimed == 0
        return self.cycle.response_complete and self.timeout_keep_alive_task is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        super().connection_made(transport)  # type: ignore[arg-type]  # as uvicorn has it
        if not self._patrol.enter(self):
            sentence = "This server has as many connections as it may; try again."
            self._refuse(503, "too_many_connections", sentence)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._patrol.leave(self)
        if self._under_way is not None:
            self._under_way.disconnected = True
            self._under_way.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio has it
        """Stay for the answers to what came whole: who sends no more may still read."""
        cycle = self.cycle
        if self.pipeline and cycle.more_body:
            self.send_400_response("The request ended early.")
        if self._parting is not None:
            return True
        if cycle is None or cycle.more_body or cycle.response_complete:
            return False
        cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._parting is not None:
            return
        self._unclaimed += len(data)
        super().data_received(data)
        if self._unclaimed > self._most_header_bytes and not self.transport.is_closing():
            self._refuse(431, "header_too_large", self._header_sentence())

    def on_headers_complete(self) -> None:
        """Pass on a head within its bounds."""
        if self.parser.should_upgrade():  # comes again, without the offer
            return
        if len(self.url) > self._most_url_bytes:
            sentence = f"A URL may have {self._most_url_bytes} bytes."
            self._refusal = _raw_problem(414, "url_too_long", sentence)
            raise _Refused
        # Otherwise it cannot be too large, whatever came behind it.
        if self._unclaimed > self._most_header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._most_header_bytes:
                self._refusal = _raw_problem(431, "header_too_large", self._header_sentence())
                raise _Refused
        self._unclaimed = self._body_bytes = 0
        super().on_headers_complete()
        if not self.pipeline:
            self._under_way = self.cycle

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of a body."""
        self._unclaimed = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Pass on the end of a request."""
        if not self.parser.should_upgrade():
            super().on_message_complete()
            self.cycle.more_body = False  # also of one that was answered before it had all come

    def on_response_complete(self) -> None:
        """Go on with the next request, or take leave."""
        self._under_way = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if (
            self._under_way is None
            and self._parting is not None
            and not self.transport.is_closing()
        ):
            self.transport.write(self._parting)
            self.transport.close()

    def shutdown(self) -> None:
        """End behind the request that is under way, whose body must be there soon."""
        super().shutdown()
        self.loop.call_later(LAST_SECONDS, self._end_body)

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be understood, and close."""
        self._turn_away(self._refusal or _raw_problem(400, "http_invalid", msg))

    def look(self, now: float) -> None:
        """End the connection if what it owes has been too long in coming.

        Args:
            now: of the loop's clock.
        """
        awaited, mark = self._owed()
        if awaited != self._awaited or (awaited == "reading" and mark != self._mark):
            self._awaited, self._since, self._mark = awaited, now, mark
            return
        seconds, limits = now - self._since, self._patrol.limits
        if awaited == "end":
            if seconds > LINGER_SECONDS:
                self.transport.abort()
        elif awaited is None or seconds <= limits.read_seconds:
            return
        elif awaited == "reading":
            self.transport.abort()
        elif awaited == "head":
            self._refuse_slow("head")
        elif mark - self._mark < seconds * limits.body_bytes_per_second:
            self._refuse_slow("body")

    def _owed(self) -> tuple[str | None, int]:
        """Return what the client is to do next, None where it is our turn, and how far it is."""
        if self.transport.is_closing():
            return "end", 0
        if self.flow.write_paused:
            return "reading", self.transport.get_write_buffer_size()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            # On a connection that is kept alive the first byte of a request ends uvicorn's timer.
            waits = cycle is None or self.timeout_keep_alive_task is None
            return ("head", 0) if waits else (None, 0)
        ours = self.flow.read_paused or cycle.body or cycle.scope["state"].get(STREAMED)
        return (None, 0) if ours or not cycle.more_body else ("body", self._body_bytes)

    def _refuse_slow(self, part: str) -> None:
        if self.idle:  # it never began
            self.transport.close()
            return
        sentence = f"The request's {part} did not come in time."
        self._refuse(408, "request_timeout", sentence)

    def _header_sentence(self) -> str:
        return f"The head of a request may have {self._most_header_bytes} bytes."

    def _refuse(self, status: int, code: str, sentence: str) -> None:
        self._turn_away(_raw_problem(status, code, sentence))

    def _end_body(self) -> None:
        cycle = self.cycle
        if cycle is None or not cycle.more_body or cycle.response_complete:
            return
        if stop := cycle.scope["state"].get(STREAMED):
            stop()
            super().on_body(b"")  # wakes it
        else:
            self._refuse(503, "shutting_down", "This process is about to end; send it again.")

    def _turn_away(self, refusal: bytes) -> None:
        """Answer what is coming and not wanted, behind all that came before it, and close."""
        if self._parting is not None:
            return
        cycle = self.cycle
        if self.pipeline or not (cycle is None or cycle.more_body or cycle.response_complete):
            self._parting = refusal
            if cycle.more_body:  # it waits there itself, and will never be whole
                self.pipeline.popleft()
                cycle.more_body = False
            return
        if cycle is None or cycle.more_body != cycle.response_started:
            # Nothing was asked yet, all was answered, or the body that is coming awaits its answer.
            self.transport.write(refusal)
        self.transport.close()


class Patrol:
    """Looks at the connections of one process, once a second while there are any."""

    def __init__(self, limits: ConnectionLimits) -> None:
        """Keep the limits."""
        self.limits = limits
        # In the order in which they came: the oldest idle one goes first.
        self._connections: dict[GuardedProtocol, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._all_busy = False

    def enter(self, connection: GuardedProtocol) -> bool:
        """Add a connection; return False where there is no room for it.

        Idle ones make room: their clients open another when they need it.
        """
        if len(self._connections) >= self.limits.connections and not self._make_room():
            return False
        self._connections[connection] = None
        if self._timer is None:
            self._timer = connection.loop.call_later(ROUND_SECONDS, self._round, connection.loop)
        return True

    def leave(self, connection: GuardedProtocol) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)

    def _make_room(self) -> bool:
        if self._all_busy:  # as of this round
            return False
        most = min(EVICTED_AT_ONCE, 1 + self.limits.connections // 10)
        idle = [one for one in self._connections if one.idle][:most]
        for connection in idle:
            del self._connections[connection]
            connection.transport.close()
        self._all_busy = not idle
        return bool(idle)

    def _round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._all_busy = False
        now = loop.time()
        for connection in list(self._connections):
            connection.look(now)
        self._timer = (
            loop.call_later(ROUND_SECONDS, self._round, loop) if self._connections else None
        )


def within_files(limits: ConnectionLimits) -> ConnectionLimits:
    """Return limits whose connections fit the process's file limit, raised as far as need be.

    Beyond the file limit not only clients are turned away: Redis and Postgres could not be reached
    again either.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + OWN_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft not in (resource.RLIM_INFINITY, most) and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most == wanted:
        return limits
    fitting = max(1, most - OWN_FILES)
    LOG.warning("connections.lowered", max_connections=fitting, file_limit=hard)
    return replace(limits, connections=fitting)


def _raw_problem(status: int, code: str, sentence: str) -> bytes:
    headers = {"Connection": "close"} | ({"Retry-After": "1"} if status == 503 else {})  # noqa: PLR2004  (HTTP)
    response = problem(status, code, sentence, request_id=uuid.uuid4().hex, headers=headers)
    lines = [name + b": " + value + b"\r\n" for name, value in response.raw_headers]
    return b"".join((STATUS_LINE[status], *lines, b"\r\n", bytes(response.body)))
