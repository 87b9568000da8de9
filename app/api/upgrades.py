"""Requests that offer another protocol (``Upgrade``) are served in this one (RFC 9110, 7.8).

The parser takes the end of such a head for the end of HTTP and leaves out the body: the document of
a client that asks for HTTP/2 first, as Java's does, would be taken for an empty one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class SteadyParser(httptools.HttpRequestParser):
    """A parser that stays with HTTP/1; its owner ignores a head that ``should_upgrade``."""

    def __init__(self, owner: HttpToolsProtocol) -> None:
        """Keep whom to tell."""
        super().__init__(owner)
        # As uvicorn does: an answer to the first of several requests may be its last.
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._owner = owner

    def feed_data(self, data: bytes | bytearray | memoryview[int] | array[int]) -> None:
        """Parse; a head with an offer is parsed again without it, and then what is behind it.

        Raises:
            httptools.HttpParserError: it is no HTTP, or asks for a tunnel.
        """
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                method, version = self.get_method(), self.get_http_version().encode()
                if method == b"CONNECT":
                    message = "No tunnels."
                    raise httptools.HttpParserError(message) from None
                line = b"%b %b HTTP/%b\r\n" % (method, self._owner.url, version)
                data = line + _without_offer(self._owner.headers) + bytes(data[offer.args[0] :])
                if not self.should_keep_alive():  # this one is done
                    self._owner.parser = SteadyParser(self._owner)
                    self._owner.parser.feed_data(data)
                    return
            else:
                return


def _without_offer(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = []
    for name, value in headers:
        if name == b"connection":
            tokens = [one for one in value.split(b",") if one.strip().lower() != b"upgrade"]
            lines.append(b"%b:%b\r\n" % (name, b",".join(tokens)))
        elif name != b"upgrade":
            lines.append(b"%b:%b\r\n" % (name, value))
    return b"".join((*lines, b"\r\n"))
