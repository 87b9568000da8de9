"""A receiver that costs as little as Python allows: it answers every POST and counts.

``POST`` anything: 200. ``GET /count``: how many POSTs came, how many distinct webhook-ids they
carried (each path counts its own, as a receiver of its own would), and the seconds between the
first and the last. ``GET /reset``: from zero again.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, cast

import uvloop

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_ID = b"\r\nwebhook-id: "
_LENGTH = b"\r\ncontent-length: "


class Tally:
    """What came so far."""

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.reset()

    def reset(self) -> None:
        """Begin from zero."""
        self.requests = 0
        self.ids.clear()
        self.first_at = self.last_at = 0.0

    def count(self, webhook_id: bytes) -> None:
        """Count a request."""
        self.last_at = time.perf_counter()
        if not self.requests:
            self.first_at = self.last_at
        self.requests += 1
        if webhook_id:
            self.ids.add(webhook_id)

    def as_json(self) -> bytes:
        """Return the counts as an HTTP answer."""
        counts: dict[str, Any] = {
            "requests": self.requests,
            "distinct": len(self.ids),
            "seconds": self.last_at - self.first_at,
        }
        body = json.dumps(counts).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Connection(asyncio.Protocol):
    """HTTP/1.1 as far as these requests need it: a head, then ``Content-Length`` bytes."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every complete request in the buffer."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[: end + 2].lower()
            size = int(_value(head, _LENGTH) or 0)
            if len(self._buffer) < end + 4 + size:
                return
            self._buffer = self._buffer[end + 4 + size :]
            self._transport.write(self._answer(head))

    def _answer(self, head: bytes) -> bytes:
        if head.startswith(b"post"):
            webhook_id = _value(head, _ID)
            self._tally.count(webhook_id and head[: head.find(b"\r\n")] + webhook_id)
            return _OK
        if head.startswith(b"get /reset"):
            self._tally.reset()
            return _OK
        return self._tally.as_json()


def _value(head: bytes, name: bytes) -> bytes:
    start = head.find(name)
    return head[start + len(name) : head.find(b"\r\n", start + 2)] if start >= 0 else b""


def run(port: int) -> None:
    """Serve on loopback until the process is ended."""
    uvloop.run(_serve(port))


async def _serve(port: int) -> None:
    tally = Tally()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(tally), "127.0.0.1", port)
    await server.serve_forever()
