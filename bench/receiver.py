"""A webhook receiver in this process that notes when each document arrived."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class TimingReceiver:
    """Listens on loopback while it is entered."""

    def __init__(self) -> None:
        self._arrived: dict[str, float] = {}
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                arrived_at = time.perf_counter()
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204)
                self.send_header("Content-Length", "0")
                self.end_headers()
                receiver.note(json.loads(body)["data"]["id"], arrived_at)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def note(self, document_id: str, arrived_at: float) -> None:
        """Note an arrival."""
        with self._changed:
            self._arrived[document_id] = arrived_at
            self._changed.notify_all()

    def wait_for(self, document_id: str, seconds: float = 30.0) -> float:
        """Return when a document arrived.

        Raises:
            RuntimeError: it did not.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: document_id in self._arrived, seconds):
                message = "void: a delivery did not arrive"
                raise RuntimeError(message)
            return self._arrived[document_id]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
