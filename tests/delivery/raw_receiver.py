"""A receiver that speaks whatever bytes a test wants, on a real socket."""

import asyncio
import re

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class RawReceiver:
    """``speak(receiver, writer)`` answers each request; true keeps the connection."""

    def __init__(self, loop_thread, speak, *, tls=None):
        self.connections = 0
        self._tls = tls
        self.heads = []
        self._thread = loop_thread
        self._speak = speak

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head.decode())
                await reader.readexactly(_length(head))
                if not await self._speak(self, writer):
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def start(self):
        async def start():
            return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)

        self._server = self._thread.run(start())
        scheme = "https" if self._tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def stop(self):
        self._server.close()
        await self._server.wait_closed()


def answering(data, *, keep=True):
    async def speak(_, writer):
        writer.write(data)
        await writer.drain()
        return keep

    return speak


def _length(head):
    return int(re.search(rb"(?i)^content-length: *(\d+)", head, flags=re.MULTILINE)[1])
