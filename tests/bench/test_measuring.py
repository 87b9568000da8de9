"""What the benchmark measures with: texts, the load's answers, commit times, processes, turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from bench import commits, texts
from bench.__main__ import PARTS, main
from bench.load import read_wrk
from bench.processes import memory, paused, tree
from bench.results import Void
from bench.run import SHORT, Run
from bench.upload import upload

WRK = """Running 2s test @ http://127.0.0.1:1
  1 threads and 64 connections
  17890 requests in 2.10s, 5.12MB read
Requests/sec:   8900.01
Transfer/sec:      2.55MB
P 50 7100.5
P 99.9 21000
P 0 900
P 100 30000
"""


def test_documents_all_differ_and_are_the_same_in_every_run():
    once, again = texts.take(500, 30), texts.take(500, 30)
    assert once == again
    assert len(set(once)) == 500
    assert {len(text.split()) - 2 for text in once} == {30, 31}
    assert sum(not text.isascii() for text in once) == 50


def test_ndjson_holds_the_first_documents_with_the_ids_that_were_given(tmp_path):
    file = tmp_path / "x.ndjson"
    size = texts.write_ndjson(file, 3, 30, iter(["a", "b", "c"]))
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert size == file.stat().st_size
    assert [line["id"] for line in lines] == ["a", "b", "c"]
    assert [line["content"] for line in lines] == texts.take(3, 30)


def test_what_wrk_prints_is_read():
    load = read_wrk(WRK, began_at=5.0)
    assert (load.accepted, load.seconds, load.began_at) == (17890, 2.1, 5.0)
    assert load.latency == [(0, 0.9), (50, 7.1005), (99.9, 21.0), (100, 30.0)]


@pytest.mark.parametrize(
    "trouble", ["Non-2xx or 3xx responses: 7", "Socket errors: connect 0, read 3"]
)
def test_a_refused_document_makes_the_load_void(trouble):
    with pytest.raises(Void, match=trouble[:12]):
        read_wrk(f"{WRK}  {trouble}\n", began_at=0.0)


@pytest.fixture
def answering():
    """A server that says how many lines an upload had, less what it is told to lose."""

    class Handler(BaseHTTPRequestHandler):
        lost = 0

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = json.dumps({"accepted": body.count(b"\n") - self.lost}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_upload_counts_only_when_every_line_was_accepted(answering, tmp_path):
    url, handler = answering
    texts.write_ndjson(tmp_path / "x", 100, 30)
    sent = upload(url, tmp_path / "x", 100)
    assert sent.began_at <= sent.answered_at <= time.time()
    handler.lost = 1
    with pytest.raises(Void, match="99 of 100"):
        upload(url, tmp_path / "x", 100)


def test_commit_times_are_postgres_own(make_postgres):
    server = make_postgres(track_commit_timestamp="on")
    url = server.url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE things (n int)")
        connection.execute("INSERT INTO things VALUES (0)")
        began_at = time.time()
        connection.execute("INSERT INTO things SELECT generate_series(1, 10)")
        connection.execute("INSERT INTO things SELECT generate_series(1, 30)")
    found = commits.commits(url, "things", began_at)
    assert [rows for _, rows in found.steps] == [10, 30]
    assert found.rows == 40
    assert began_at < found.ended_at < time.time()
    assert found.rate(found.ended_at - 2.0) == pytest.approx(20.0)


def test_rates_over_time_leave_out_the_last_unfinished_step():
    found = commits.Commits([(10.1, 5), (10.4, 5), (11.2, 20), (11.6, 1)])
    assert found.over_time(10.0, 0.5) == [(0.25, 20.0), (0.75, 0.0), (1.25, 40.0)]


def test_percentiles_are_values_of_the_sample():
    found = dict(commits.percentiles([float(number) for number in range(1001)]))
    assert (found[0], found[50], found[99], found[100]) == (0.0, 500.0, 990.0, 1000.0)


def test_a_process_is_paused_with_everything_below_it():
    code = (
        "import subprocess, sys; "
        "subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout.readline() == b"1\n"  # the child runs
    below = tree(parent.pid)
    assert len(below) == 2
    assert "input()" in below[1].command
    with paused(parent.pid):
        wait_for_state({one.pid for one in below}, "T")
    wait_for_state({one.pid for one in below}, "S")
    parent.communicate(b"\n", timeout=10)


def wait_for_state(pids, wanted):
    states = {}
    for _ in range(1000):
        for pid in pids:
            stat = Path(f"/proc/{pid}/stat").read_text()
            states[pid] = stat.rpartition(")")[2].split()[0]
        if set(states.values()) == {wanted}:
            return
        time.sleep(0.01)
    pytest.fail(f"{states}, not {wanted}")


def test_memory_is_read_in_megabytes():
    found = memory(os.getpid())
    assert 10 < found["pss"] <= found["rss"] < 2_000


def test_contestants_take_turns_there_and_back():
    turns = []

    def contestant(name):
        def run():
            turns.append(name)
            return float(len(turns))

        return run

    scale = SHORT.__class__(**{**as_values(SHORT), "rounds": 2})
    rates = Run(None, scale).take_turns({name: contestant(name) for name in "abc"})
    assert "".join(turns) == "abccba"
    assert rates == {"a": [1.0, 6.0], "b": [2.0, 5.0], "c": [3.0, 4.0]}


def as_values(scale):
    return {name: getattr(scale, name) for name in scale.__slots__}


def test_an_unknown_part_is_refused_with_the_known_ones_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "bulkk"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "bulkk" in said
    assert all(name in said for name in PARTS)
