import asyncio
import ipaddress
import socket
import ssl
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvloop
from standardwebhooks import Webhook

from app.domain.deliveries import OutcomeKind
from app.domain.destinations import DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT
from app.domain.envelopes import JSON, Payload
from app.domain.urls import normalised_url
from tests.delivery.conftest import LOOPBACK, wait_until
from tests.delivery.raw_receiver import OK, RawReceiver, answering
from worker import connections as connections_module
from worker import resolver as resolver_module
from worker.connections import Connections
from worker.sender import Sender
from worker.targets import Targets

CERTIFICATE = Path(__file__).with_name("localhost.pem")
PATIENCE_SECONDS = 30.0
"""Longer than a busy machine may stand still; a test that fails for slowness took as long."""
BODY = b'{"type":"document.classified"}'
PAYLOAD = Payload(BODY, JSON)
DESTINATION = make_destination(
    DEFAULT_TENANT,
    DestinationInput(key="a", url="http://127.0.0.1/"),
    now=datetime.now(UTC),
)


def target(url, timeout_seconds=PATIENCE_SECONDS):
    return Targets().of(replace(DESTINATION, url=url, timeout_seconds=timeout_seconds))


def send(url, *, timeout_seconds=PATIENCE_SECONDS, allowed=(LOOPBACK,), **options):
    async def run():
        async with Sender(allowed, **options) as sender:
            return await sender.send(target(url, timeout_seconds), "msg_1", PAYLOAD)

    return uvloop.run(run())


def send_twice(receiver):
    async def run():
        async with Sender([LOOPBACK]) as sender:
            return [await sender.send(target(receiver.url), f"msg_{n}", PAYLOAD) for n in range(2)]

    return uvloop.run(run())


def test_a_request_is_signed_for_its_moment_and_says_who_sends(receiver):
    outcome = send(receiver.url)
    assert (outcome.kind, outcome.status, outcome.error) == (OutcomeKind.SUCCESS, 200, None)
    assert 0 < outcome.duration_seconds < PATIENCE_SECONDS
    (request,) = receiver.received
    Webhook(DESTINATION.secret).verify(request.body, request.headers)
    assert request.path == "/hook"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Docyard/")
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"


@pytest.mark.parametrize(
    ("status", "kind"), [(204, "success"), (302, "permanent"), (404, "permanent"), (410, "gone")]
)
def test_the_status_decides(receiver, status, kind):
    receiver.answers(status, "" if status == 204 else "why", Location="http://127.0.0.1:1/")
    outcome = send(receiver.url)
    assert (outcome.kind, outcome.status) == (kind, status)
    assert len(receiver.received) == 1


def test_a_throttling_receiver_is_heard(receiver):
    receiver.answers(429, Retry_After="17")
    outcome = send(receiver.url)
    assert (outcome.kind, outcome.retry_after_seconds) == (OutcomeKind.THROTTLED, 17)


def test_a_date_in_retry_after_is_read_by_the_clock_that_due_times_are_of(receiver):
    receiver.answers(429, Retry_After="Sat, 21 Nov 2026 12:01:00 GMT")
    outcome = send(receiver.url, now=lambda: datetime(2026, 11, 21, 12, tzinfo=UTC))
    assert outcome.retry_after_seconds == 60


def test_cookies_are_not_kept(receiver):
    receiver.answers(200, Set_Cookie="session=1")

    async def run():
        async with Sender([LOOPBACK]) as sender:
            for _ in range(2):
                await sender.send(target(f"http://localhost:{receiver.port}/"), "msg_1", PAYLOAD)

    uvloop.run(run())
    assert ["cookie" in one.headers for one in receiver.received] == [False, False]


def test_proxies_of_the_environment_are_not_asked(receiver, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert send(receiver.url).kind is OutcomeKind.SUCCESS


# Receivers that take their time


def test_a_receiver_that_says_nothing_ends_at_the_deadline(receiver):
    receiver.hangs()
    began_at = time.monotonic()
    outcome = send(receiver.url, timeout_seconds=0.3)
    assert 0.3 <= time.monotonic() - began_at < PATIENCE_SECONDS
    assert (outcome.kind, outcome.status) == (OutcomeKind.TEMPORARY, None)
    assert outcome.error == "no complete answer within 0.3 s"


def test_a_head_that_drips_ends_at_the_deadline(speaking):
    async def drip(_, writer):
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    began_at = time.monotonic()
    outcome = send(speaking(drip).url, timeout_seconds=0.5)
    assert time.monotonic() - began_at < PATIENCE_SECONDS
    assert outcome.kind is OutcomeKind.TEMPORARY


@pytest.mark.parametrize(("line", "kind"), [(b"200 OK", "success"), (b"500 No", "temporary")])
def test_a_body_that_drips_ends_at_the_deadline_and_the_status_stands(speaking, line, kind):
    async def drip(_, writer):
        writer.write(b"HTTP/1.1 " + line + b"\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    began_at = time.monotonic()
    outcome = send(speaking(drip).url, timeout_seconds=1.5)
    assert 1.5 <= time.monotonic() - began_at < PATIENCE_SECONDS
    assert outcome.kind == kind


def test_a_body_without_end_is_cut_at_the_cap(speaking):
    sent = 0

    async def flood(_, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()
            sent += 4096

    began_at = time.monotonic()
    outcome = send(speaking(flood).url)
    assert time.monotonic() - began_at < PATIENCE_SECONDS
    assert outcome.kind is OutcomeKind.SUCCESS
    assert sent < 32 * 1024 * 1024  # socket buffers, not the memory of a process


def test_a_body_that_is_not_what_it_says_is_left_out(receiver):
    receiver.answers(500, "not gzip", Content_Encoding="gzip")
    assert send(receiver.url).error == "HTTP 500 Internal Server Error"


# Receivers that break off


def test_an_answer_that_breaks_off_behind_its_status_counts(speaking):
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    assert send(speaking(answering(short, keep=False)).url).kind is OutcomeKind.SUCCESS


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is not HTTP: "),
        (b"HTTP/1.1 abc\r\n\r\n", "the answer is not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", "its head has no end"),
    ],
)
def test_what_is_no_answer_is_a_temporary_failure(speaking, data, error):
    outcome = send(speaking(answering(data, keep=False)).url)
    assert (outcome.kind, outcome.status) == (OutcomeKind.TEMPORARY, None)
    assert error in outcome.error


def test_a_kept_connection_that_was_closed_meanwhile_costs_no_attempt(speaking):
    async def once_per_connection(receiver, writer):
        # The second request meets a close, as when an idle connection times out over there.
        if len(receiver.heads) == 2:
            return False
        writer.write(OK)
        await writer.drain()
        return True

    receiver = speaking(once_per_connection)

    assert [one.kind for one in send_twice(receiver)] == ["success", "success"]
    assert receiver.connections == 2
    assert [one.lower().count("webhook-id: msg_1") for one in receiver.heads] == [0, 1, 1]


def test_connections_are_kept(speaking):
    receiver = speaking(answering(OK))

    async def run():
        async with Sender([LOOPBACK]) as sender:
            for _ in range(5):
                await sender.send(target(receiver.url), "msg_1", PAYLOAD)

    uvloop.run(run())
    assert (receiver.connections, len(receiver.heads)) == (1, 5)


def test_nobody_listening_is_a_temporary_failure():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        outcome = send(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert outcome.kind is OutcomeKind.TEMPORARY
    assert outcome.error.startswith("no connection: ")


def test_a_receiver_without_tls_is_a_temporary_failure(receiver):
    outcome = send(receiver.url.replace("http:", "https:"))
    assert outcome.kind is OutcomeKind.TEMPORARY
    assert outcome.error.startswith("TLS: ")


def test_whatever_a_receiver_says_can_be_stored(speaking):
    odd = b"HTTP/1.1 500 \xff\xfe\r\nContent-Length: 3\r\n\r\n\x00\xff\x01"
    outcome = send(speaking(answering(odd)).url)
    assert outcome.kind is OutcomeKind.TEMPORARY
    assert "\0" not in outcome.error
    outcome.error.encode()


# HTTP/1.1 as it is spoken


@pytest.mark.parametrize(
    "data",
    [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_behind_a_whole_answer_the_connection_is_used_again(speaking, data):
    receiver = speaking(answering(data))
    assert [one.kind for one in send_twice(receiver)] == ["success", "success"]
    assert receiver.connections == 1


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\n",  # what nobody asked for
        OK + b"garbage",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000,  # cut
    ],
)
def test_behind_any_other_answer_the_connection_is_closed(speaking, data):
    receiver = speaking(answering(data))
    assert [one.kind for one in send_twice(receiver)] == ["success", "success"]
    assert receiver.connections == 2


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n2\r\n"]
)
def test_a_body_that_its_status_forbids_is_no_answer_to_the_next_request(speaking, framing):
    async def late_body(receiver, writer):
        if len(receiver.heads) > 1:
            writer.write(OK)
            return True
        head, rest = framing.split(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n" + head + b"\r\n\r\n")
        await writer.drain()
        # Late, but before anything else is answered.
        await asyncio.sleep(0.05)
        writer.write(rest + b"ok")
        return True

    assert [one.kind for one in send_twice(speaking(late_body))] == ["success", "success"]


def test_behind_an_answer_to_half_a_request_the_connection_is_closed(loop_thread):
    """What the receiver has not read yet would stand before the next request, perhaps for ever."""
    at_once = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    writers = []

    async def answer_and_read_no_more(reader, writer):
        writers.append(writer)
        await reader.read(1)
        writer.write(at_once)

    async def listen():
        return await asyncio.start_server(answer_and_read_no_more, "127.0.0.1", 0, limit=1024)

    async def run(port):
        async with Sender([LOOPBACK]) as sender:
            to = target(f"http://127.0.0.1:{port}/")
            large = Payload(b"x" * 16 * 1024 * 1024, JSON)
            first = await sender.send(to, "msg_1", large)
            return first, await sender.send(to, "msg_2", PAYLOAD)

    async def stop():
        for writer in writers:
            writer.transport.abort()
        server.close()
        await server.wait_closed()

    server = loop_thread.run(listen())
    try:
        outcomes = uvloop.run(run(server.sockets[0].getsockname()[1]))
    finally:
        loop_thread.run(stop())
    assert [one.status for one in outcomes] == [413, 413]


def test_an_answer_without_a_length_ends_with_its_connection(speaking):
    data = b"HTTP/1.1 500 No\r\n\r\nthe reason"
    assert send(speaking(answering(data, keep=False)).url).error == "HTTP 500 No: the reason"


def test_an_upgrade_is_no_success(speaking):
    data = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    outcome = send(speaking(answering(data)).url)
    assert outcome.kind is OutcomeKind.TEMPORARY
    assert outcome.error == "the answer is not HTTP: it switches protocols"


def test_announcements_without_end_are_cut_off(speaking):
    async def announce(_, writer):
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
            await writer.drain()

    began_at = time.monotonic()
    outcome = send(speaking(announce).url)
    assert time.monotonic() - began_at < PATIENCE_SECONDS
    assert outcome.error == "the answer is not HTTP: its head has no end"


def test_what_an_idle_connection_says_unasked_closes_it(speaking):
    async def speak_on(_, writer):
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(OK.replace(b"200", b"410"))
        await writer.drain()
        return True

    receiver = speaking(speak_on)

    async def run():
        async with Sender([LOOPBACK]) as sender:
            first = await sender.send(target(receiver.url), "msg_1", PAYLOAD)
            await asyncio.to_thread(wait_until, lambda: not sender._connections._alive)
            return first, await sender.send(target(receiver.url), "msg_2", PAYLOAD)

    first, second = uvloop.run(run())
    assert (first.status, second.status) == (200, 200)
    assert receiver.connections == 2


def test_a_large_body_arrives_whole(receiver):
    body = b"x" * (8 * 1024 * 1024)

    async def run():
        async with Sender([LOOPBACK]) as sender:
            return await sender.send(target(receiver.url), "msg_1", Payload(body, JSON))

    assert uvloop.run(run()).kind is OutcomeKind.SUCCESS
    assert receiver.received[0].body == body


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/"),
        ("/a/b?c=d&e=f", "/a/b?c=d&e=f"),
        ("/%C3%BC?x=%20y", "/%C3%BC?x=%20y"),
        ("/ü?x=ü", "/%C3%BC?x=%C3%BC"),
    ],
)
def test_path_and_query_go_out_as_they_were_given(speaking, path, asked):
    receiver = speaking(answering(OK))
    assert send(normalised_url(receiver.url.removesuffix("/") + path)).status == 200
    assert receiver.heads[0].startswith(f"POST {asked} HTTP/1.1\r\nHost: 127.0.0.1:")


def test_idle_connections_are_closed_after_a_while(speaking, monkeypatch):
    monkeypatch.setattr(connections_module, "KEPT_SECONDS", 0.1)
    receiver = speaking(answering(OK))

    async def run():
        async with Sender([LOOPBACK]) as sender:
            await sender.send(target(receiver.url), "msg_1", PAYLOAD)
            assert len(sender._connections._idle) == 1
            await asyncio.sleep(0.3)
            return len(sender._connections._idle)

    assert uvloop.run(run()) == 0


# TLS


@pytest.fixture
def tls_receiver(loop_thread):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    receiver = RawReceiver(loop_thread, answering(OK), tls=context).start()
    yield receiver
    loop_thread.run(receiver.stop())


def test_an_unknown_certificate_is_refused(tls_receiver):
    outcome = send(tls_receiver.url)
    assert outcome.kind is OutcomeKind.TEMPORARY
    assert outcome.error.startswith("TLS certificate: ")
    assert tls_receiver.heads == []


def test_a_trusted_certificate_must_be_for_the_name_that_is_called(tls_receiver, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    outcome = send(tls_receiver.url.replace("127.0.0.1", "localhost"))
    assert outcome.kind is OutcomeKind.SUCCESS
    assert 0 < outcome.trace.tls_ms < outcome.trace.total_ms
    outcome = send(tls_receiver.url)
    assert outcome.error.startswith("TLS certificate: ")
    assert len(tls_receiver.heads) == 1


# Addresses


class Names:
    """Answers in turn what it was given, as a name server may that has something in mind."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    async def addresses(self, host):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(host) if callable(answer) else answer

    async def close(self):
        pass


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://10.0.0.1/", "10.0.0.1 is a private address"),
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 is a link-local address"),
        ("http://[::1]/", "::1 is a loopback address"),
        ("http://[fe80::1]/", "fe80::1 is a link-local address"),
        ("http://[::ffff:10.0.0.1]/", "10.0.0.1 is a private address"),
        ("http://[64:ff9b::7f00:1]/", "is a NAT64 address"),
    ],
)
def test_an_address_in_the_url_is_refused_although_no_name_is_looked_up(url, what):
    outcome = send(url)
    assert (outcome.kind, outcome.status) == (OutcomeKind.PERMANENT, None)
    assert outcome.error.startswith("address refused: ")
    assert what in outcome.error


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "017700000001"])
def test_odd_notations_of_an_address_reach_nobody(receiver, host):
    outcome = send(f"http://{host}:{receiver.port}/")
    assert outcome.kind in {OutcomeKind.PERMANENT, OutcomeKind.TEMPORARY}
    assert receiver.received == []


def test_a_name_with_only_refused_addresses_is_refused(receiver):
    names = Names(["10.0.0.1", "192.168.0.1", "::ffff:127.0.0.2"])
    outcome = send(f"http://trap.example:{receiver.port}/", allowed=(), names=names)
    assert outcome.kind is OutcomeKind.PERMANENT
    assert "10.0.0.1 is a private address" in outcome.error


def test_of_several_addresses_only_the_allowed_ones_are_connected(make_receiver):
    inside = make_receiver(host="127.0.0.2")
    outside = make_receiver(host="127.0.0.1", port=inside.port)
    names = Names(["127.0.0.2", "127.0.0.1"])
    allowed = (ipaddress.ip_network("127.0.0.1/32"),)
    for _ in range(3):
        outcome = send(f"http://two.example:{inside.port}/", allowed=allowed, names=names)
        assert outcome.kind is OutcomeKind.SUCCESS
    assert (len(outside.received), len(inside.received)) == (3, 0)


def test_a_name_that_changes_its_answer_gains_nothing(make_receiver, monkeypatch):
    monkeypatch.setattr(resolver_module, "ANSWER_LIVES_SECONDS", 0)
    monkeypatch.setattr(Connections, "give", lambda _, __, connection: connection.abort())
    inside = make_receiver(host="127.0.0.2")
    outside = make_receiver(host="127.0.0.1", port=inside.port)
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    allowed = (ipaddress.ip_network("127.0.0.1/32"),)

    async def run():
        url = f"http://rebind.example:{inside.port}/"
        async with Sender(allowed, names=names) as sender:
            return [await sender.send(target(url), "msg_1", PAYLOAD) for _ in range(3)]

    outcomes = uvloop.run(run())
    assert [one.kind for one in outcomes] == ["success", "permanent", "permanent"]
    assert names.asked == 3
    assert (len(outside.received), len(inside.received)) == (1, 0)


async def _never(_):
    await asyncio.Event().wait()


def test_a_dead_zone_delays_only_those_who_wait_for_it(receiver, monkeypatch):
    monkeypatch.setattr(resolver_module, "LOOKUP_SECONDS", 2 * PATIENCE_SECONDS)
    names = Names(_never)

    async def run():
        async with Sender([LOOPBACK], names=names) as sender:
            dead = [
                asyncio.create_task(sender.send(target(f"http://dead{n}.example/"), "m", PAYLOAD))
                for n in (1, 1, 1, 2)
            ]
            await asyncio.sleep(0)
            alive = await sender.send(target(receiver.url), "msg_1", PAYLOAD)
            waiting = [task for task in dead if not task.done()]
            for task in dead:
                task.cancel()
            await asyncio.wait(dead)
            return alive, len(waiting)

    alive, waiting = uvloop.run(run())
    assert (alive.kind, waiting) == (OutcomeKind.SUCCESS, 4)
    assert names.asked == 2  # one look-up for those who ask for the same


def test_a_name_of_a_dead_zone_is_a_temporary_failure(monkeypatch):
    monkeypatch.setattr(resolver_module, "LOOKUP_SECONDS", 0.1)
    outcome = send("http://dead.example/", names=Names(_never))
    assert outcome.kind is OutcomeKind.TEMPORARY
    assert "could not be resolved: no answer within" in outcome.error


def test_names_of_the_hosts_file_are_found(receiver):
    assert send(f"http://localhost:{receiver.port}/").kind is OutcomeKind.SUCCESS


def test_a_name_that_does_not_exist_is_a_temporary_failure():
    names = Names(_raise_not_found)
    outcome = send("http://nowhere.example/", names=names)
    assert outcome.kind is OutcomeKind.TEMPORARY
    assert outcome.error == "the name nowhere.example could not be resolved: not found"


async def _raise_not_found(_):
    raise OSError(None, "not found")
