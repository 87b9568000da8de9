"""``POST /documents/bulk``: each line for itself, whatever stream, queue and client do."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import uuid

import pytest
import redis

from app.api import bulk_answers, connections, upload
from app.queue import batches
from app.queue.append import BATCH_SECONDS
from app.queue.names import Keys
from tests.acceptance.conftest import until
from tests.api.test_batches import queued_documents

NDJSON = {"Accept": "application/x-ndjson"}


def lines(count, start=0):
    return b"".join(b'{"content": "text %d"}\n' % n for n in range(start, start + count))


def post(web, body, headers=None, query=""):
    return web.ask("POST", f"/documents/bulk{query}", body, headers)


def results(answer):
    found = [json.loads(line) for line in answer.body.splitlines()]
    return found[:-1], found[-1]["summary"]


class Stream:
    """An upload whose pieces are sent by hand, while its answer is read."""

    def __init__(self, web, *, accept="application/x-ndjson", query=""):
        self._socket = socket.create_connection(("127.0.0.1", web.port), timeout=20)
        self._socket.sendall(
            f"POST /documents/bulk{query} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")

    def send(self, data):
        self._socket.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self):
        self._socket.sendall(b"0\r\n\r\n")

    def status(self):
        status = int(self._file.readline().split()[1])
        while self._file.readline().strip():
            pass
        return status

    def piece(self):
        size = int(self._file.readline(), 16)
        piece = self._file.read(size)
        self._file.readline()
        return piece

    def rest(self):
        return self._file.read()

    def leave(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._socket.close()


def batch(web, one):
    return web.ask("GET", f"/batches/{one}").json


def test_lines_become_documents_of_the_bulk_lane_and_are_summed_up(web):
    answer = post(web, lines(1_200))
    assert answer.status == 202
    body = answer.json
    assert (body["lines"], body["accepted"], body["rejected"]) == (1_200, 1_200, 0)
    assert body["complete"] is True
    assert [one["content"] for one in queued_documents(web, "ingest.bulk")] == [
        f"text {n}" for n in range(1_200)
    ]
    assert list(web.queued()) == ["ingest.bulk"]
    counts = batch(web, body["id"])
    assert (counts["intake"], counts["accepted"], counts["queued"]) == ("complete", 1_200, 1_200)


def test_each_line_has_its_result_and_what_is_wrong_is_refused_alone(web):
    mine = str(uuid.uuid4())
    sent = [
        b"\xef\xbb\xbf" + json.dumps({"content": "first", "id": mine}).encode() + b"\r",
        b"",
        b'{"content": "", "colour": 1}',
        b'{"content": "truncated',
        b"[]",
        b'{"content": "\xff"}',
        b'{"content": "' + b"x" * 20_000 + b'"}',
        b"  ",
        b'{"content": "last, without a newline", "priority": 5}',
    ]
    answer = post(web, b"\n".join(sent), NDJSON)
    assert answer.status == 200
    found, summary = results(answer)
    assert [(one["line"], one["status"]) for one in found] == [
        (1, "accepted"),
        (3, "rejected"),
        (4, "rejected"),
        (5, "rejected"),
        (6, "rejected"),
        (7, "rejected"),
        (9, "accepted"),
    ]
    assert found[0]["id"] == mine
    assert found[1]["pointer"] == "/content"
    assert found[5]["code"] == "line_too_long"
    assert (summary["accepted"], summary["rejected"], summary["lines"]) == (2, 5, 9)
    assert web.queued() == {"ingest.bulk": 1, "ingest.high": 1}
    # Nothing of a document is echoed in an error.
    assert b"xxxxx" not in answer.body


def test_the_summary_names_the_first_errors(web):
    answer = post(web, lines(1) + b"{}\n" * 1_500)
    assert answer.status == 202
    errors = answer.json["errors"]
    assert (answer.json["rejected"], len(errors), errors[0]["line"]) == (1_500, 1_000, 2)


def test_an_upload_of_nothing_valid_is_a_problem(web):
    answer = post(web, b"{}\n[]\n")
    assert (answer.status, answer.json["code"]) == (422, "no_line_accepted")
    assert answer.json["rejected"] == 2
    assert web.queued() == {}


def test_an_empty_upload_is_complete(web):
    assert post(web, b"").json["accepted"] == 0


def test_abort_ends_with_the_first_bad_line_and_keeps_those_before_it(web):
    answer = post(web, lines(700) + b"{}\n" + lines(700), query="?on_error=abort")
    assert (answer.status, answer.json["code"]) == (422, "line_refused")
    assert (answer.json["accepted"], answer.json["lines"]) == (700, 701)
    assert answer.json["complete"] is False
    assert len(queued_documents(web, "ingest.bulk")) == 700
    assert batch(web, answer.json["id"])["intake"] == "line_refused"


@pytest.mark.parametrize("cut", [1, 7, 64 * 1024])
def test_gzip_is_inflated_however_it_is_cut(web, cut):
    packed = gzip.compress(lines(300)) + gzip.compress(lines(300, 300))
    body = iter([packed[at : at + cut] for at in range(0, len(packed), cut)])
    answer = post(web, body, {"Content-Encoding": "gzip"})
    assert answer.json["accepted"] == 600


@pytest.mark.parametrize(
    "damage",
    {
        "cut short": lambda data: data[:-20],
        "damaged": lambda data: data[:-8] + b"\0" * 8,
        "not gzip": lambda _: lines(3),
    }.values(),
)
def test_broken_gzip_is_a_problem_that_says_how_much_was_taken(web, damage):
    packed = gzip.compress(lines(50)) + damage(gzip.compress(lines(3)))
    answer = post(web, packed, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.json["code"]) == (400, "body_undecodable")
    assert answer.json["accepted"] >= 50


def test_a_little_that_inflates_to_much_is_bounded(serve, database_url, redis_url):
    web = serve(database_url=database_url, redis_url=redis_url, max_bulk_bytes=50_000_000)
    bomb = gzip.compress(lines(10) + b"x" * 100_000_000)
    answer = post(web, bomb, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")
    assert (answer.json["accepted"], answer.json["lines"]) == (10, 10)


def test_an_unknown_encoding_or_query_is_refused_before_the_body_is_read(web):
    assert post(web, b"", {"Content-Encoding": "br"}).status == 415
    for query in ("?on_error=explode", "?id=seven", "?colour=red"):
        assert post(web, lines(1), query=query).status == 422
    assert web.queued() == {}


def test_results_come_while_the_upload_goes_on(web):
    stream = Stream(web)
    stream.send(lines(3))
    assert stream.status() == 200
    assert [json.loads(one)["line"] for one in stream.piece().splitlines()] == [1, 2, 3]
    stream.send(lines(2))
    assert [json.loads(one)["line"] for one in stream.piece().splitlines()] == [4, 5]
    stream.end()
    assert json.loads(stream.piece())["summary"]["accepted"] == 5
    stream.leave()


def test_an_upload_that_is_cut_off_says_how_much_was_taken(web):
    one = uuid.uuid4()
    stream = Stream(web, query=f"?id={one}")
    stream.send(lines(3) + b'{"content": "half a li')
    stream.status()
    stream.piece()
    assert batch(web, one)["intake"] == "receiving"
    stream.leave()
    until(lambda: batch(web, one)["intake"] == "cut_off")
    assert batch(web, one)["accepted"] == 3
    # The same id goes on where it ended.
    assert post(web, lines(2), query=f"?id={one}").status == 202
    assert (batch(web, one)["accepted"], batch(web, one)["intake"]) == (5, "complete")


def test_an_upload_under_the_id_of_one_that_has_ended_is_receiving(web):
    one = uuid.uuid4()
    assert post(web, lines(2), query=f"?id={one}").status == 202
    assert batch(web, one)["intake"] == "complete"
    stream = Stream(web, query=f"?id={one}")
    stream.send(lines(1))
    stream.status()
    stream.piece()
    assert (batch(web, one)["intake"], batch(web, one)["accepted"]) == ("receiving", 3)
    stream.end()
    until(lambda: batch(web, one)["intake"] == "complete")
    stream.leave()


def test_a_batch_that_nobody_renews_is_cut_off(web, redis_url):
    """Its process was killed, or could not say how it ended."""
    one = uuid.uuid4()
    stream = Stream(web, query=f"?id={one}")
    stream.send(lines(3))
    stream.status()
    stream.piece()
    assert batch(web, one)["intake"] == "receiving"
    with redis.Redis.from_url(redis_url) as client:
        key = Keys("docyard").batch(one)
        client.expire(key, BATCH_SECONDS - batches.SILENT_SECONDS - 1)
        assert (batch(web, one)["intake"], batch(web, one)["accepted"]) == ("cut_off", 3)
    stream.send(lines(1))
    stream.piece()
    assert batch(web, one)["intake"] == "receiving"
    stream.leave()


def test_an_upload_of_which_nothing_comes_is_renewed(web, redis_url, monkeypatch):
    monkeypatch.setattr(batches, "RENEW_SECONDS", 0.1)
    one = uuid.uuid4()
    stream = Stream(web, query=f"?id={one}")
    stream.send(lines(3))
    stream.status()
    stream.piece()
    with redis.Redis.from_url(redis_url) as client:
        client.expire(Keys("docyard").batch(one), 5)
        assert until(lambda: client.ttl(Keys("docyard").batch(one)) > 5, 5)
    stream.leave()


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_shutdown_ends_an_upload_with_the_count(
    serve, database_url, redis_url, monkeypatch, caplog, accept
):
    monkeypatch.setattr(connections, "LAST_SECONDS", 0.1)
    web, other = (serve(database_url=database_url, redis_url=redis_url) for _ in range(2))
    one = uuid.uuid4()
    stream = Stream(web, accept=accept, query=f"?id={one}")
    stream.send(lines(3) + b'{"content": "half a li')
    assert until(lambda: batch(other, one).get("accepted") == 3)
    web._server.should_exit = True
    if accept == "application/json":
        assert stream.status() == 503
        summary = json.loads(stream.rest())
    else:
        assert stream.status() == 200
        stream.piece()
        summary = json.loads(stream.piece())["summary"]
    assert (summary["code"], summary["accepted"], summary["lines"]) == ("shutting_down", 3, 3)
    assert batch(other, one)["intake"] == "shutting_down"
    stream.leave()
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


def test_a_shutdown_ends_an_upload_that_waits_for_room(serve, database_url, redis_url, monkeypatch):
    monkeypatch.setattr(connections, "LAST_SECONDS", 0.1)
    web = serve(database_url=database_url, redis_url=redis_url, high_water_mark=1_000)
    stream = Stream(web, accept="application/json")
    stream.send(lines(1_000))
    assert until(lambda: len(queued_documents(web, "ingest.bulk")) == 500)
    web._server.should_exit = True
    assert stream.status() == 503
    assert json.loads(stream.rest())["accepted"] == 500
    stream.leave()


def test_a_client_that_falls_silent_is_answered_with_the_count(serve, database_url, redis_url):
    web = serve(database_url=database_url, redis_url=redis_url, upload_idle_seconds=0.5)
    stream = Stream(web, accept="application/json")
    stream.send(lines(3) + b'{"content": "half')
    assert stream.status() == 408
    stream.leave()


def test_a_full_queue_slows_the_upload_down_and_it_goes_on_by_itself(
    serve, database_url, redis_url, monkeypatch
):
    monkeypatch.setattr(bulk_answers, "BEGIN_SECONDS", 0.3)
    web = serve(database_url=database_url, redis_url=redis_url, high_water_mark=1_000)
    done = []
    body = lines(3_000)
    thread = threading.Thread(target=lambda: done.append(post(web, body, NDJSON)))
    thread.start()
    client = redis.Redis.from_url(redis_url)
    until(lambda: int(client.hget("docyard:queued", "ingest.bulk") or 0) >= 500)
    while not done:
        # A worker empties the queue.
        assert client.llen("docyard:ingest.bulk") <= 3
        with client.pipeline() as pipeline:
            pipeline.delete("docyard:ingest.bulk", "docyard:ingest.bulk.msgs")
            pipeline.execute()
        time.sleep(0.02)
    thread.join()
    client.close()
    assert results(done[0])[1]["accepted"] == 3_000


def test_a_queue_that_stays_full_ends_the_upload_with_the_count(
    serve, database_url, redis_url, monkeypatch
):
    monkeypatch.setattr(upload, "PATIENCE_SECONDS", 0.5)
    web = serve(database_url=database_url, redis_url=redis_url, high_water_mark=1_000)
    answer = post(web, lines(3_000))
    assert (answer.status, answer.json["code"]) == (503, "queue_full")
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json["accepted"] == answer.json["lines"] == 500
    assert len(queued_documents(web, "ingest.bulk")) == 500


def test_a_restart_of_redis_in_the_middle_is_waited_for(serve, database_url, make_valkey):
    server = make_valkey()
    web = serve(database_url=database_url, redis_url=server.url)
    stream = Stream(web)
    stream.send(lines(3))
    stream.status()
    stream.piece()
    server.kill()
    stream.send(lines(3))
    server.start()
    assert [json.loads(one)["line"] for one in stream.piece().splitlines()] == [4, 5, 6]
    stream.end()
    assert json.loads(stream.piece())["summary"]["complete"] is True
    stream.leave()
    assert len(queued_documents(web, "ingest.bulk")) == 6


def test_errors_do_not_repeat_long_keys(web):
    unknown = b'{"content": "x", "%b": 1}\n' % (b"k" * 9_000)
    unstorable = b'{"content": "x", "attributes": {"%b": NaN}}\n' % (b"k" * 9_000)
    body = gzip.compress(unknown * 600 + unstorable * 600)
    answer = post(web, body, {"Content-Encoding": "gzip"})
    errors = answer.json["errors"]
    assert (answer.status, len(errors)) == (422, bulk_answers.MAX_ERRORS)
    beginning = "k" * 200 + "…"
    assert {one["pointer"] for one in errors} == {f"/{beginning}", f"/attributes/{beginning}"}
