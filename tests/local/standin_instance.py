"""An instance without servers: takes documents and destinations, and delivers one to the other."""

import contextlib
import http.client
import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from app.domain.signing import sign
from app.local.folder import PROJECT

EXAMPLES = sorted((PROJECT / "examples" / "documents").glob("*.json"))


class StandInInstance(ThreadingHTTPServer):
    """Takes documents and destinations, and delivers one to the other.

    Attributes:
        asked: method, path and authorization of every request.
        secret: signs what is delivered, instead of the destination's own.
        lost: categories that are never delivered.
        refuse: why every POST is refused.
    """

    daemon_threads = False  # their connections are closed when the test is over

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.delivering: list[threading.Thread] = []
        self.destinations: dict[str, dict] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.secret: str | None = None
        self.lost: set[str] = set()
        self.refuse: str | None = None

    def deliver(self, document: dict) -> None:
        labels = {json.loads(file.read_text())["content"]: file.stem for file in EXAMPLES}
        category = labels.get(document["content"])
        if category in self.lost:
            return
        data = document | {"category": category, "confidence": 0.875}
        for destination in list(self.destinations.values()):
            secret = self.secret or destination["secret"]
            for _ in range(2):  # a repeat, as after a lost answer; the demo may be over by then
                with contextlib.suppress(OSError):
                    post_webhook(
                        destination["url"], secret, {"data": data}, f"msg_{document['id']}"
                    )


class _Handler(BaseHTTPRequestHandler):
    server: StandInInstance

    def _answer(self, status: int, body: object = None) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"" if body is None else json.dumps(body).encode())

    def _note(self) -> dict:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        return json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"null")

    def do_GET(self):
        self._note()
        if self.path.startswith("/destinations"):
            return self._answer(200, self._page(parse_qs(urlsplit(self.path).query)))
        queues = [{"queue": "ingest", "messages": 3, "oldest_seconds": None}]
        answer = {"status": "ready", "durability": "always", "queues": queues}
        return self._answer(200, answer if self.path == "/readyz" else {"links": {"a": "/a"}})

    def _page(self, query):
        """Return one destination at a time, so that pages are turned."""
        after = query.get("cursor", [""])[0]
        left = sorted(one for one in self.server.destinations if one > after)
        items = [self.server.destinations[one] | {"id": one} for one in left[:1]]
        return {"items": items, "next_cursor": left[0] if len(left) > 1 else None}

    def do_POST(self):
        body = self._note()
        if self.server.refuse:
            self._answer(401, {"title": "Unauthorized", "detail": self.server.refuse})
        elif self.path == "/destinations":
            made = str(uuid.uuid4())
            self.server.destinations[made] = body
            self._answer(201, body | {"id": made})
        else:
            self._answer(202, body)
            thread = threading.Thread(target=self.server.deliver, args=(body,))
            self.server.delivering.append(thread)
            thread.start()

    def do_DELETE(self):
        self._note()
        known = self.server.destinations.pop(self.path.rpartition("/")[2], None)
        self._answer(404 if known is None else 204)

    def log_message(self, *_):
        pass


def post_webhook(url: str, secret: str, body: object, webhook_id: str = "msg_1") -> int:
    raw = json.dumps(body).encode()
    now = int(time.time())
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=2)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secret, webhook_id, now, raw),
    }
    with contextlib.closing(connection):
        connection.request("POST", "/", raw, headers)
        return connection.getresponse().status
