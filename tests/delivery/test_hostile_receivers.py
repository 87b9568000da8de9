"""Receivers that never come to an end, unfold without bound, or lead somewhere else.

``PATIENCE_SECONDS`` is the timeout of the destination where the bytes must end an exchange, and a
test of that kind fails when the deadline ended it; where the deadline must, it is short.
"""

import asyncio
import gc
import gzip
import itertools
import socket
import time
import tracemalloc
import zlib
from dataclasses import replace

import pytest
import uvloop

from app.domain.deliveries import OutcomeKind, RetryPolicy
from app.domain.envelopes import JSON, Payload
from tests.delivery.conftest import LOOPBACK
from tests.delivery.raw_receiver import OK, answering
from tests.delivery.test_sender import PATIENCE_SECONDS, PAYLOAD, Names, send, target
from tests.delivery.test_workload import due
from worker import connections as connections_module
from worker import resolver as resolver_module
from worker.attempts import Attempts
from worker.conclusions import Conclusions
from worker.sender import Sender
from worker.targets import Targets

SHORT_SECONDS = 0.4
HEAD_SECONDS = 1.5  # where a head must have come by then, also on a busy machine
MOST_BYTES = 16 * 1024 * 1024  # what sockets may buffer on the way; no process holds as much

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
TRAILERS = CHUNKED + b"2\r\nok\r\n0\r\n"

# What comes first, and what follows it for ever.
ENDLESS_HEADS = {
    "header lines": (HEAD, b"X-A: b\r\n" * 500),
    "a header line": (HEAD + b"X-A: ", b"b" * 4096),
    "a header name": (HEAD, b"X" * 4096),
    "a reason": (b"HTTP/1.1 200 ", b"O" * 4096),
    "announcements": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100),
    "spaces in front": (b"", b"\r\n" * 2048),
}
ENDLESS_BODIES = {
    "a body": (HEAD + b"\r\n", b"x" * 4096),
    "chunks": (CHUNKED, b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    "tiny chunks": (CHUNKED, b"1\r\nx\r\n" * 700),
    "a chunk extension": (CHUNKED + b"2;", b"x" * 4096),
    "trailers": (TRAILERS, b"X-A: b\r\n" * 500),
    "a trailer": (TRAILERS + b"X-A: ", b"b" * 4096),
}


def flooding(first, rest):
    """Return what sends ``rest`` for ever, and the number of bytes that went out in ``sent``."""

    async def flood(receiver, writer):
        receiver.sent = 0
        writer.write(first)
        while True:
            writer.write(rest)
            await writer.drain()
            receiver.sent += len(rest)

    return flood


def dripping(first, rest):
    async def drip(_, writer):
        writer.write(first)
        while True:
            writer.write(rest)
            await writer.drain()
            await asyncio.sleep(0.02)

    return drip


def timed(url, **options):
    began_at = time.monotonic()
    return send(url, **options), time.monotonic() - began_at


@pytest.mark.parametrize("name", ENDLESS_HEADS)
def test_a_head_without_end_is_cut_at_the_cap(speaking, name):
    receiver = speaking(flooding(*ENDLESS_HEADS[name]))
    outcome, seconds = timed(receiver.url, timeout_seconds=PATIENCE_SECONDS)
    assert (outcome.kind, outcome.status) == (OutcomeKind.TEMPORARY, None)
    assert outcome.error.startswith("the answer is not HTTP: ")
    assert seconds < PATIENCE_SECONDS
    assert receiver.sent < MOST_BYTES


@pytest.mark.parametrize("name", ENDLESS_BODIES)
def test_a_body_without_end_is_cut_at_the_cap_and_the_status_stands(speaking, name):
    receiver = speaking(flooding(*ENDLESS_BODIES[name]))
    outcome, seconds = timed(receiver.url, timeout_seconds=PATIENCE_SECONDS)
    assert (outcome.kind, outcome.status) == (OutcomeKind.SUCCESS, 200)
    assert seconds < PATIENCE_SECONDS
    assert receiver.sent < MOST_BYTES


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (b"", b"\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (HEAD, b"X-A: b\r\n"),
    ],
)
def test_a_head_that_drips_in_any_way_ends_at_the_deadline(speaking, first, rest):
    receiver = speaking(dripping(first, rest))
    outcome, seconds = timed(receiver.url, timeout_seconds=SHORT_SECONDS)
    assert outcome.kind is OutcomeKind.TEMPORARY
    assert outcome.error == "no complete answer within 0.4 s"
    assert SHORT_SECONDS <= seconds < PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("first", "rest"),
    [(CHUNKED, b"1\r\nx\r\n"), (CHUNKED + b"2;", b"x"), (TRAILERS, b"X-A: b\r\n")],
)
def test_a_body_that_drips_in_any_way_ends_at_the_deadline(speaking, first, rest):
    receiver = speaking(dripping(first, rest))
    outcome, seconds = timed(receiver.url, timeout_seconds=HEAD_SECONDS)
    assert (outcome.kind, outcome.status) == (OutcomeKind.SUCCESS, 200)
    assert HEAD_SECONDS <= seconds < PATIENCE_SECONDS


def test_a_drip_on_a_kept_connection_ends_at_the_deadline_of_its_own_request(speaking):
    drip = dripping(HEAD, b"X-A: b\r\n")

    async def ok_then_drip(receiver, writer):
        if len(receiver.heads) > 1:
            return await drip(receiver, writer)
        writer.write(OK)
        return True

    receiver = speaking(ok_then_drip)

    async def run():
        async with Sender([LOOPBACK]) as sender:
            patient = target(receiver.url, PATIENCE_SECONDS)
            first = await sender.send(patient, "msg_1", PAYLOAD)
            return first, await sender.send(target(receiver.url, SHORT_SECONDS), "msg_2", PAYLOAD)

    first, second = uvloop.run(run())
    assert (first.kind, second.kind) == (OutcomeKind.SUCCESS, OutcomeKind.TEMPORARY)
    assert receiver.connections == 1


@pytest.fixture
def silent_port():
    """A port that takes connections and neither reads nor says anything."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_who_neither_reads_nor_shakes_hands_meets_the_deadline(silent_port, scheme):
    async def run():
        async with Sender([LOOPBACK]) as sender:
            to = target(f"{scheme}://127.0.0.1:{silent_port}/", SHORT_SECONDS)
            return await sender.send(to, "msg_1", Payload(b"x" * 16 * 1024 * 1024, JSON))

    began_at = time.monotonic()
    outcome = uvloop.run(run())
    assert SHORT_SECONDS <= time.monotonic() - began_at < PATIENCE_SECONDS
    assert outcome.error == "no complete answer within 0.4 s"


def test_of_a_request_that_is_not_read_one_copy_is_held():
    size = 8 * 1024 * 1024
    row = due(1, content="x" * size)

    async def run():
        begun = asyncio.Event()

        async def read_no_further(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            begun.set()
            await making
            writer.close()

        server = await asyncio.start_server(read_no_further, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        to = replace(target(url, PATIENCE_SECONDS), body="raw")
        async with server, Sender([LOOPBACK]) as sender:
            attempts = Attempts(sender, Targets(), Conclusions(RetryPolicy()))
            making = asyncio.create_task(attempts.make(row, to, RetryPolicy(), lambda: None))
            await begun.wait()
            held, _ = tracemalloc.get_traced_memory()
            await sender._connections.close()
            await making
            return held

    tracemalloc.start()
    try:
        held = uvloop.run(run())
    finally:
        tracemalloc.stop()
    assert size <= held < 1.5 * size


def test_a_handshake_that_breaks_off_says_so(loop_thread):
    async def close_behind_the_first_bytes(reader, writer):
        await reader.read(16 * 1024)
        writer.close()

    server = loop_thread.run(asyncio.start_server(close_behind_the_first_bytes, "127.0.0.1", 0))
    outcome = send(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    server.close()
    assert (outcome.kind, outcome.status) == (OutcomeKind.TEMPORARY, None)
    assert outcome.error == "no connection: the receiver closed it"


def test_the_deadline_covers_the_look_up_of_the_name():
    async def never(_):
        await asyncio.Event().wait()

    outcome, seconds = timed(
        "http://slow.example/", timeout_seconds=SHORT_SECONDS, names=Names(never)
    )
    assert outcome.error == "no complete answer within 0.4 s"
    assert seconds < resolver_module.LOOKUP_SECONDS


def test_parts_that_are_slow_one_after_the_other_share_one_deadline(speaking):
    async def slow_name(_):
        await asyncio.sleep(0.5)
        return ["127.0.0.1"]

    async def slow_head(_, writer):
        await asyncio.sleep(0.5)
        writer.write(OK)
        return False

    url = speaking(slow_head).url.replace("127.0.0.1", "slow.example")
    assert send(url, timeout_seconds=5, names=Names(slow_name)).kind is OutcomeKind.SUCCESS
    outcome = send(url, timeout_seconds=0.75, names=Names(slow_name))
    assert outcome.error == "no complete answer within 0.75 s"


@pytest.mark.parametrize(
    ("lines", "status"), [(10_000, 500), (40_000, None)], ids=["a whole head", "one cut at the cap"]
)
def test_heads_of_many_short_lines_cost_memory_for_a_few_of_them_only(speaking, lines, status):
    numbers = itertools.count()

    async def answer(_, writer):
        rest = b"".join(b"%x:\r\n" % number for number in range(lines))
        writer.write(b"HTTP/1.1 500 No\r\nX-A: %d\r\n" % next(numbers) + rest + b"\r\n")
        await writer.drain()

    url = speaking(answer).url

    async def run():
        async with Sender([LOOPBACK]) as sender:
            return [await sender.send(target(url), "msg_1", PAYLOAD) for _ in range(10)]

    tracemalloc.start()
    try:
        outcomes = uvloop.run(run())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {one.status for one in outcomes} == {status}
    assert peak < 8 * 1024 * 1024


def test_a_connection_that_has_ended_keeps_nothing_of_its_answer(speaking):
    url = speaking(answering(HEAD + b"\r\n" + b"x" * 60_000, keep=False)).url

    async def run():
        async with Sender([LOOPBACK]) as sender:
            outcomes = [await sender.send(target(url), "msg_1", PAYLOAD) for _ in range(50)]
            await asyncio.sleep(0)  # closed on the next turn
            return outcomes, tracemalloc.get_traced_memory()[0]

    # A collection may be far away: behind a slow answer, connections are among what lives long.
    gc.disable()
    tracemalloc.start()
    try:
        outcomes, held = uvloop.run(run())
    finally:
        tracemalloc.stop()
        gc.enable()
    assert {one.status for one in outcomes} == {200}
    assert held < 1024 * 1024


# What unfolds


def raw_deflate(data):
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
    ],
)
def test_a_bomb_unfolds_to_an_excerpt_only(speaking, coding, pack):
    bomb = pack(b"boom " * 10_000_000)
    head = f"HTTP/1.1 500 No\r\nContent-Encoding: {coding}\r\nContent-Length: {len(bomb)}\r\n\r\n"
    url = speaking(answering(head.encode() + bomb)).url
    tracemalloc.start()
    try:
        outcome = send(url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.error.startswith("HTTP 500 No: boom boom")
    assert len(outcome.error) <= 500
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "deflate, br"])
def test_codings_that_nobody_asked_for_are_named_and_not_unfolded(receiver, coding):
    receiver.answers(500, "\x0b\x02\x80boom\x03", Content_Encoding=coding)
    assert send(receiver.url).error == f"HTTP 500 Internal Server Error: (a body in {coding})"


# What leads somewhere else


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_nobody_follows_it(make_receiver, status):
    elsewhere, receiver = make_receiver(), make_receiver()
    receiver.answers(status, Location=elsewhere.url)
    outcome = send(receiver.url)
    assert (outcome.kind, outcome.status) == (OutcomeKind.PERMANENT, status)
    assert (len(receiver.received), len(elsewhere.received)) == (1, 0)


@pytest.fixture
def connected(monkeypatch):
    """The addresses that connections set out for; nobody is there."""
    tried = []

    async def set_out(_self, _origin, addresses, _trace):
        tried.extend(info[4][0] for info in addresses)
        raise ConnectionRefusedError(None, "not in a test")

    monkeypatch.setattr(connections_module.Connections, "_connect", set_out)
    return tried


@pytest.mark.parametrize("inside", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"])
def test_a_name_that_is_public_first_and_inside_next_is_called_in_public_only(
    monkeypatch, connected, inside
):
    monkeypatch.setattr(resolver_module, "ANSWER_LIVES_SECONDS", 0)
    names = Names(["8.8.8.8", "2606:4700::1111"], [inside])

    async def run():
        rebinding = target("http://rebind.example/")
        async with Sender((), names=names) as sender:
            first = await sender.send(rebinding, "msg_1", PAYLOAD)
            # What was vetted is what is connected: there was no second look-up in between.
            assert names.asked == 1
            return first, await sender.send(rebinding, "msg_1", PAYLOAD)

    first, second = uvloop.run(run())
    assert connected == ["8.8.8.8", "2606:4700::1111"]
    assert first.error == "no connection: not in a test"
    assert (second.kind, names.asked) == (OutcomeKind.PERMANENT, 2)
    assert second.error.startswith("address refused: ")


def test_of_a_mixed_answer_only_what_is_public_is_connected(connected):
    names = Names(["127.0.0.1", "8.8.8.8", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%lo", "bogus"])
    send("http://mixed.example/", allowed=(), names=names)
    assert connected == ["8.8.8.8"]
