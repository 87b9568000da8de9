"""Limits at the door: what comes too large, too slowly or too often is refused, and named."""

from __future__ import annotations

import gzip
import json
import resource
import socket
import struct
import threading
import time
import uuid

import pytest
import redis

from app.api import connections
from app.api.bodies import SLICE_BYTES
from app.api.connections import OWN_FILES, ConnectionLimits, within_files
from app.api.events import EventReader
from app.domain.limits import DocumentLimits
from app.settings import Settings
from tests.acceptance.conftest import until

DOCUMENT = b'{"content":"a"}'


class Client:
    """A connection on which a test sends what it likes."""

    def __init__(self, web, receive_buffer=None):
        self.socket = socket.socket()
        self.socket.settimeout(20)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", web.port))
        self._received = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def drip(self, data, stop):
        """Send a byte each 50 ms until told to stop, or until nobody takes them."""

        def run():
            try:
                for byte in data:
                    if stop.wait(0.05):
                        return
                    self.socket.sendall(bytes([byte]))
            except OSError:
                return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def answer(self):
        """Return status and problem code of the next answer; None when it is closed without."""
        try:
            while b"\r\n\r\n" not in self._received:
                if not (piece := self.socket.recv(65536)):
                    return None
                self._received += piece
            head, _, body = self._received.partition(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            while len(body) < length and (piece := self.socket.recv(65536)):
                body += piece
        except ConnectionResetError:
            return None
        body, self._received = body[:length], body[length:]
        return int(head.split()[1]), json.loads(body).get("code")


def head(body_length, path="/documents", more=""):
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {body_length}\r\n{more}\r\n"
    ).encode()


def busy(web):
    """How many connections have come, and something of a request on them."""
    return sum(not one.idle for one in list(web.patrol._connections))


@pytest.fixture
def quick(serve, database_url, redis_url, monkeypatch):
    """A server that waits for half a second only, and looks often."""
    monkeypatch.setattr(connections, "ROUND_SECONDS", 0.05)
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.2)
    return serve(database_url=database_url, redis_url=redis_url, read_timeout_seconds=0.5)


def test_a_head_that_drips_is_answered_408(quick):
    stop = threading.Event()
    with Client(quick) as client:
        thread = client.drip(head(2) * 10, stop)
        assert client.answer() == (408, "request_timeout")
        stop.set()
        thread.join(5)


def test_a_head_that_drips_behind_an_answered_request_is_too(quick):
    stop = threading.Event()
    with Client(quick) as client:
        client.send(head(len(DOCUMENT)) + DOCUMENT)
        assert client.answer() == (202, None)
        thread = client.drip(head(2) * 10, stop)
        assert client.answer() == (408, "request_timeout")
        stop.set()
        thread.join(5)


def test_a_connection_on_which_nothing_comes_is_closed(quick):
    with Client(quick) as client:
        assert client.answer() is None


@pytest.mark.parametrize("path", ["/documents", "/documents/batch", "/v1/event", "/destinations"])
def test_a_body_that_drips_is_answered_408_and_keeps_nothing(quick, path):
    stop = threading.Event()
    with Client(quick) as client:
        client.send(head(1_000, path, "Content-Type: application/json\r\n"))
        thread = client.drip(b" " * 1_000, stop)
        assert client.answer() == (408, "request_timeout")
        stop.set()
        thread.join(5)
    assert quick.queued() == {}


def test_a_body_that_is_slow_but_not_too_slow_is_taken(serve, database_url, redis_url, monkeypatch):
    monkeypatch.setattr(connections, "ROUND_SECONDS", 0.05)
    web = serve(
        database_url=database_url,
        redis_url=redis_url,
        read_timeout_seconds=0.3,
        min_body_bytes_per_second=2,
    )
    body = DOCUMENT + b" " * 15
    with Client(web) as client:
        client.send(head(len(body)))
        assert until(lambda: any(one._awaited == "body" for one in list(web.patrol._connections)))
        client.send(body[:-1])  # enough for 14 seconds
        sent_at = time.monotonic()
        assert until(lambda: time.monotonic() - sent_at > 1)
        client.send(body[-1:])
        assert client.answer() == (202, None)


def test_a_body_that_is_still_coming_at_a_shutdown_is_refused(web, monkeypatch, caplog):
    monkeypatch.setattr(connections, "LAST_SECONDS", 0.1)
    with Client(web) as client:
        client.send(head(len(DOCUMENT)) + DOCUMENT[:-1])
        assert until(lambda: busy(web) == 1)
        web._server.should_exit = True
        assert client.answer() == (503, "shutting_down")
    assert web.queued() == {}
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


def test_an_upload_may_drip(quick):
    body = b'{"content":"a"}\n{"content":"b"}\n'
    with Client(quick) as client:
        client.send(head(len(body), "/documents/bulk"))
        client.drip(body, threading.Event()).join(20)
        assert client.answer() == (202, None)


def test_who_does_not_read_an_answer_is_let_go(quick):
    # Repeated in the answer, which is more than the buffers of both ends hold.
    text = json.dumps({"content": "a" * 8_000_000}).encode()
    with Client(quick, receive_buffer=4096) as client:
        client.send(head(len(text)) + text)
        assert until(lambda: [one for one in quick.patrol._connections if one.flow.write_paused], 9)
        assert until(lambda: not quick.patrol._connections, 9)


@pytest.mark.parametrize(
    ("request_line", "more", "code"),
    [
        ("GET /healthz?" + "a" * 8_192, "", (414, "url_too_long")),
        ("GET /healthz", "X: " + "a" * 40_000, (431, "header_too_large")),
        ("GET /healthz", "\r\n".join(f"X{n}: a" for n in range(5_000)), (431, "header_too_large")),
        ("NO", "", (400, "http_invalid")),
    ],
)
def test_a_head_beyond_its_bounds_is_refused(web, request_line, more, code):
    with Client(web) as client:
        client.send(f"{request_line} HTTP/1.1\r\nHost: x\r\n{more}\r\n\r\n".encode())
        assert client.answer() == code


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\nX: ", b"GET /", b""])
def test_a_head_without_end_is_refused_before_it_fills_the_memory(web, begin):
    with Client(web) as client:
        client.send(begin)
        piece = b"a" * 1_000 if begin else b"\r\n" * 500
        try:
            for _ in range(1_000):
                client.send(piece)
            # What was sent may all lie in the kernel's buffers; it is refused when it is read.
            assert client.answer() in {None, (431, "header_too_large"), (400, "http_invalid")}
        except OSError:
            return


CHUNKED = b"POST /documents HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("rubbish", "code"),
    [
        (b"\x16\x03\x01 no HTTP\r\n\r\n", (400, "http_invalid")),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (414, "url_too_long")),
        (CHUNKED + b"no size\r\n", (400, "http_invalid")),
    ],
    ids=["no head", "url", "body"],
)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_what_came_before_rubbish_is_answered_first(web, caplog, before, rubbish, code):
    with Client(web) as client:
        client.send((head(len(DOCUMENT)) + DOCUMENT) * before + rubbish)
        assert [client.answer() for _ in range(before)] == [(202, None)] * before
        assert client.answer() == code
        assert client.answer() is None
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


def test_what_came_before_a_head_without_end_is_answered_first(web, redis_url):
    with Client(web) as client, redis.Redis.from_url(redis_url) as slow:
        slow.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        client.send(head(len(DOCUMENT)) + DOCUMENT)
        assert until(lambda: busy(web) == 1)
        client.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000)
        assert until(lambda: any(one._parting for one in list(web.patrol._connections)))
        slow.execute_command("CLIENT", "UNPAUSE")
        assert client.answer() == (202, None)
        assert client.answer() == (431, "header_too_large")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("behind", [b"", b"GET / HT", head(9)], ids=["", "half a head", "no body"])
def test_who_sends_no_more_still_gets_answers(web, redis_url, caplog, count, behind):
    with Client(web) as client, redis.Redis.from_url(redis_url) as slow:
        slow.execute_command("CLIENT", "PAUSE", 300, "WRITE")
        client.send((head(len(DOCUMENT)) + DOCUMENT) * count + behind)
        client.socket.shutdown(socket.SHUT_WR)
        assert [client.answer() for _ in range(count)] == [(202, None)] * count
        assert client.answer() == ((400, "http_invalid") if behind == head(9) else None)
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


def test_who_leaves_before_the_answers_to_several_requests_is_no_error(web, redis_url, caplog):
    with redis.Redis.from_url(redis_url) as slow:
        slow.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        with Client(web) as client:
            client.send((head(len(DOCUMENT)) + DOCUMENT) * 3)
            assert until(lambda: any(one.pipeline for one in list(web.patrol._connections)))
            # A reset: an end alone may come from who still reads.
            linger = struct.pack("ii", 1, 0)
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert until(lambda: not web.patrol._connections)
        slow.execute_command("CLIENT", "UNPAUSE")
        assert web.post({"content": "b"}).status == 202
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


def test_trailers_without_end_are_refused(web):
    with Client(web) as client:
        client.send(b"POST /documents HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"f\r\n" + DOCUMENT + b"\r\n0\r\n")
        try:
            for _ in range(1_000):
                client.send(b"X: " + b"a" * 1_000 + b"\r\n")
            # As above: it is refused when it is read.
            assert client.answer() in {None, (431, "header_too_large"), (400, "http_invalid")}
        except OSError:
            pass
        assert web.queued() == {}


def test_a_large_body_behind_a_small_head_is_no_large_head(web):
    text = json.dumps({"content": "a" * 9_000}).encode()
    with Client(web) as client:
        client.send((head(len(text)) + text) * 20)
        for _ in range(20):
            assert client.answer() == (202, None)


def test_idle_connections_make_room_for_others(serve, database_url, redis_url):
    web = serve(database_url=database_url, redis_url=redis_url, max_connections=10)
    idle = [Client(web) for _ in range(10)]
    for client in idle:
        client.send(head(len(DOCUMENT)) + DOCUMENT)
        assert client.answer() == (202, None)
    assert web.post({"content": "b"}).status == 202
    assert idle[0].answer() is None
    idle[9].send(head(len(DOCUMENT)) + DOCUMENT)
    assert idle[9].answer() == (202, None)
    for client in idle:
        client.socket.close()


def test_where_none_is_idle_one_more_is_refused(serve, database_url, redis_url):
    web = serve(database_url=database_url, redis_url=redis_url, max_connections=10)
    clients = [Client(web) for _ in range(10)]
    for client in clients:
        client.send(head(len(DOCUMENT)))
    assert until(lambda: busy(web) == 10)
    with Client(web) as client:
        assert client.answer() == (503, "too_many_connections")
    for client in clients:
        client.send(DOCUMENT)
        assert client.answer() == (202, None)
        client.socket.close()


def test_ten_thousand_idle_connections_disturb_nobody(serve, database_url, redis_url):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Both ends of each are in this process.
    count = min(10_000, (hard - 500) // 2)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = []
    try:
        web = serve(
            database_url=database_url,
            redis_url=redis_url,
            max_connections=count + 10,
            read_timeout_seconds=600,  # none is closed before the last has come
        )
        idle += (socket.create_connection(("127.0.0.1", web.port)) for _ in range(count))
        assert until(lambda: len(web.patrol._connections) == count, 60)
        for _ in range(50):
            assert web.post({"content": "a"}).status == 202
        assert len(web.patrol._connections) >= count
    finally:
        for one in idle:
            one.close()
        until(lambda: len(web.patrol._connections) < 10, 20)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("path", ["/documents", "/documents/batch", "/v1/event", "/v1/batch"])
@pytest.mark.parametrize("kind", ["application/json", "application/cloudevents+json"])
def test_a_compressed_document_is_refused_by_name(web, path, kind):
    headers = {"Content-Encoding": "gzip", "Content-Type": kind}
    answer = web.ask("POST", path, gzip.compress(DOCUMENT), headers)
    assert (answer.status, answer.json["code"]) == (415, "encoding_unsupported")
    assert "'gzip'" in answer.json["errors"][0]["detail"]


def test_connections_fit_the_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = ConnectionLimits.of(Settings(max_connections=1_000_000))
    try:
        assert within_files(limits).connections == min(1_000_000, hard - OWN_FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"topics": ["a", "b", "c"]}, "/topics"),
        ({"keys": ["a", "b", "c"]}, "/keys"),
        ({"attributes": {"a": [1, 2, 3, 4]}}, "/attributes"),
        ({"attributes": {"a": {"b": {"c": 1}}}}, "/attributes"),
    ],
)
@pytest.mark.parametrize("path", ["/documents", "/documents/batch", "/documents/bulk"])
def test_an_installation_may_allow_less(serve, database_url, redis_url, path, fields, pointer):
    web = serve(
        database_url=database_url,
        redis_url=redis_url,
        max_topics=2,
        max_keys=2,
        max_attributes=4,
        max_depth=2,
    )
    fitting = {"content": "a", "topics": ["a"] * 2, "attributes": {"a": {"b": 1}, "c": 2, "d": 3}}
    assert _post(web, path, fitting).status == 202
    answer = _post(web, path, {"content": "a", "id": str(uuid.uuid4()), **fields})
    assert answer.status == 422
    assert pointer in answer.body.decode()


def _post(web, path, document):
    body = [document] if path.endswith("batch") else document
    return web.ask("POST", path, json.dumps(body).encode() + b"\n")


def test_a_batch_keeps_its_own_limits(serve, database_url, redis_url):
    web = serve(
        database_url=database_url, redis_url=redis_url, max_batch_bytes=2_000, max_batch_documents=2
    )
    for path in ("/documents/batch", "/v1/batch"):
        many = web.ask("POST", path, json.dumps([{"content": "a"}] * 3).encode())
        assert (many.status, many.json["code"]) == (413, "batch_too_long")
        large = web.ask("POST", path, json.dumps([{"content": "a" * 2_000}]).encode())
        assert (large.status, large.json["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("path", ["/documents", "/documents/bulk", "/v1/event"])
def test_a_large_document_is_read_beside_the_loop(
    serve, database_url, redis_url, monkeypatch, path
):
    web = serve(database_url=database_url, redis_url=redis_url)
    reading, answered, read_meanwhile = threading.Event(), threading.Event(), []

    def slowly(of, method):
        quickly = getattr(of, method)

        def read(*arguments):
            reading.set()
            read_meanwhile.append(answered.wait(10))
            return quickly(*arguments)

        monkeypatch.setattr(of, method, read)

    slowly(DocumentLimits, "check")
    slowly(EventReader, "__call__")
    body = b'{"content":"%b"}' % (b"x" * SLICE_BYTES)
    posting = threading.Thread(target=web.ask, args=("POST", path, body))
    posting.start()
    assert reading.wait(20)
    assert web.ask("GET", "/healthz").status == 200
    answered.set()
    posting.join(20)
    assert read_meanwhile == [True]
