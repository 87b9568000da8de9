"""Offers of another protocol are ignored: the request is served as if there were none."""

from __future__ import annotations

import http.client
import socket

import pytest

from tests.api.test_batches import queued_documents

OFFERS = [
    {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQ"},
    {"Connection": "keep-alive, upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
]


@pytest.mark.parametrize("offer", OFFERS, ids=["h2c", "websocket"])
@pytest.mark.parametrize("path", ["/documents", "/documents/bulk"])
def test_a_document_comes_in_although_another_protocol_is_offered(web, path, offer):
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
    for number in range(3):
        # The second in chunks, with a head and a body that arrive apart.
        body = b'{"content":"%d"}' % number
        connection.request("POST", path, iter([body]) if number == 1 else body, offer)
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.will_close) == (202, False)
    connection.close()
    lane = "ingest" if path == "/documents" else "ingest.bulk"
    assert [one["content"] for one in queued_documents(web, lane)] == ["0", "1", "2"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_offer_on_a_connection_that_is_to_close_is_served_too(web, version):
    with socket.create_connection(("127.0.0.1", web.port), timeout=5) as client:
        client.sendall(
            f"POST /documents HTTP/{version}\r\nHost: x\r\nConnection: close, Upgrade\r\n"
            'Upgrade: h2c\r\nContent-Length: 15\r\n\r\n{"content":"a"}'.encode()
        )
        assert client.makefile("rb").read().startswith(b"HTTP/1.1 202")


def test_offers_in_a_row_are_all_answered_and_a_tunnel_is_refused(web):
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
    connection.connect()
    head = (
        "POST /documents HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        "Content-Length: 15\r\n\r\n"
    )
    connection.sock.sendall(f'{head}{{"content":"a"}}'.encode() * 3)
    received = b""
    while received.count(b"HTTP/1.1 202") < 3 and (piece := connection.sock.recv(65_536)):
        received += piece
    connection.close()
    assert len(queued_documents(web)) == 3
    assert web.ask("CONNECT", "x:80").status == 400
