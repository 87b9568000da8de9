"""A proxy between two parts that does to their connections what networks do, at command.

========================= =========================================================================
``reset()``               all connections end at once with RST (on unix sockets: they are closed)
``blackhole()``           nothing passes and nothing is closed; new connections are accepted, and
                          stall; behind ``heal()`` what was under way arrives
``refuse()``              new connections are refused; those that stand go on
``delay(seconds)``        every byte arrives so much later, in each direction
``throttle(per_second)``  so many bytes per second pass, on each connection in each direction
``cut_after(n, towards)`` each connection ends behind its next n bytes towards "client" or "server"
``heal()``                ends all of these
========================= =========================================================================

They add up: a delayed connection can be throttled. Each is in force when its call returns.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

Address = tuple[str, int] | Path
"""Host and port, or a unix socket."""
Side = Literal["client", "server"]

PIECE_BYTES = 64 * 1024
PIECES_UNDER_WAY = 64
SLICES_PER_SECOND = 50
"""A throttled piece passes in so many slices per second."""
_ABORTS = struct.pack("ii", 1, 0)


class FaultProxy:
    """Listens, and passes on to ``target``; ``with`` starts and stops it, on a thread of its own.

    Args:
        target: where connections are passed on to; asked anew for each.
        listen: None takes any free port of 127.0.0.1.

    Attributes:
        accepted: connections so far.
    """

    def __init__(self, target: Address, listen: Address | None = None) -> None:
        self.target = target
        self.accepted = 0
        self.delay_seconds = 0.0
        self.bytes_per_second: float | None = None
        self.cut: tuple[Side, int] | None = None
        self._listen = listen or ("127.0.0.1", 0)
        self._connections: set[_Connection] = set()
        self._placeholder: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.flowing = asyncio.Event()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._listen

    @property
    def port(self) -> int:
        """Where it listens, on a TCP port."""
        assert not isinstance(self._listen, Path)
        return self._listen[1]

    @property
    def open_connections(self) -> int:
        """How many connections stand."""
        return len(self._connections)

    def __enter__(self) -> Self:
        if not isinstance(self._listen, Path):
            # Keeps the port ours while nobody listens: what is only bound refuses connections.
            self._placeholder = _bound(self._listen)
            self._listen = self._placeholder.getsockname()[:2]
        self._thread.start()
        self._call(self._start_listening)
        self.heal()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._call(self._end_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        if self._placeholder is not None:
            self._placeholder.close()
        if isinstance(self._listen, Path):
            self._listen.unlink(missing_ok=True)

    # Faults

    def reset(self) -> None:
        """End all connections at once."""
        self._call(self._end_all)

    def blackhole(self) -> None:
        """Let nothing pass, and close nothing."""
        self._call_plain(self.flowing.clear)

    def refuse(self) -> None:
        """Refuse new connections."""
        self._call(self._stop_listening)

    def delay(self, seconds: float) -> None:
        """Let each byte arrive so much later."""
        self.delay_seconds = seconds

    def throttle(self, bytes_per_second: float) -> None:
        """Let so many bytes per second pass."""
        self.bytes_per_second = bytes_per_second

    def cut_after(self, count: int, towards: Side) -> None:
        """End each connection behind its next ``count`` bytes towards a side."""

        def cut() -> None:
            for connection in self._connections:
                connection.carried = 0
            self.cut = (towards, count)

        self._call_plain(cut)

    def heal(self) -> None:
        """End all faults; what was closed stays closed."""
        self.delay_seconds, self.bytes_per_second, self.cut = 0.0, None, None
        self._call_plain(self.flowing.set)
        self._call(self._start_listening)

    # On the loop

    def _call(self, function: Callable[[], Coroutine[None, None, None]]) -> None:
        asyncio.run_coroutine_threadsafe(function(), self._loop).result(10)

    def _call_plain(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        self._call(call)

    async def _start_listening(self) -> None:
        if self._server is not None:
            return
        if isinstance(self._listen, Path):
            self._server = await asyncio.start_unix_server(self._take, self._listen)
        else:
            self._server = await asyncio.start_server(self._take, sock=_bound(self._listen))

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        self.accepted += 1
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def _end_all(self) -> None:
        tasks = [connection.task for connection in self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Cut(Exception):
    """The connection is to end here."""


class _Connection:
    """A client's connection and the one to the target.

    Attributes:
        carried: bytes towards the side that ``proxy.cut`` names.
    """

    def __init__(
        self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.carried = 0
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]

    async def run(self) -> None:
        """Carry bytes in both directions until both have ended, or one breaks."""
        try:
            await self._proxy.flowing.wait()
            server_reader, server_writer = await _connect(self._proxy.target)
            self._writers.append(server_writer)
            reader, writer = self._client
            async with asyncio.TaskGroup() as group:
                self._carry(group, reader, server_writer, "server")
                self._carry(group, server_reader, writer, "client")
        except* _Cut:
            for writer in self._writers:
                writer.close()
        except* OSError:
            self._abort()
        except* asyncio.CancelledError:
            self._abort()
        else:
            for writer in self._writers:
                writer.close()

    def _carry(
        self,
        group: asyncio.TaskGroup,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        towards: Side,
    ) -> None:
        queue: _Queue = asyncio.Queue(PIECES_UNDER_WAY)
        group.create_task(_read(source, queue))
        group.create_task(self._write(queue, sink, towards))

    async def _write(self, queue: _Queue, sink: asyncio.StreamWriter, towards: Side) -> None:
        while True:
            arrived_at, piece = await queue.get()
            await self._wait_until_due(arrived_at)
            if not piece:
                await self._proxy.flowing.wait()
                if sink.can_write_eof():
                    sink.write_eof()
                return
            async for part in self._paced(piece):
                await self._pass(part, sink, towards)

    async def _pass(self, part: bytes, sink: asyncio.StreamWriter, towards: Side) -> None:
        await self._proxy.flowing.wait()
        cut = self._proxy.cut
        left = cut[1] - self.carried if cut and cut[0] == towards else len(part) + 1
        sink.write(part[:left])
        await sink.drain()
        if left <= len(part):
            raise _Cut
        if cut and cut[0] == towards:
            self.carried += len(part)

    async def _wait_until_due(self, arrived_at: float) -> None:
        loop = asyncio.get_running_loop()
        # In steps, since the delay may be another by then.
        while (left := arrived_at + self._proxy.delay_seconds - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, 1 / SLICES_PER_SECOND))

    async def _paced(self, piece: bytes) -> AsyncIterator[bytes]:
        while piece:
            rate = self._proxy.bytes_per_second
            size = len(piece) if rate is None else max(1, int(rate / SLICES_PER_SECOND))
            if rate is not None:
                await asyncio.sleep(min(size, len(piece)) / rate)
            yield piece[:size]
            piece = piece[size:]

    def _abort(self) -> None:
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTS)
            writer.transport.abort()


_Queue = asyncio.Queue[tuple[float, bytes]]


async def _read(source: asyncio.StreamReader, queue: _Queue) -> None:
    loop = asyncio.get_running_loop()
    piece = b"-"
    while piece:
        piece = await source.read(PIECE_BYTES)
        await queue.put((loop.time(), piece))


async def _connect(target: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(target, Path):
        return await asyncio.open_unix_connection(target)
    return await asyncio.open_connection(*target)


def _bound(address: tuple[str, int]) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    return sock
