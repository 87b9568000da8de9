"""More documents than a small Redis can hold: refused in time, kept, drained, and taken again."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import redis

from tests.acceptance.conftest import until

TEXT = "the shuttle reached orbit after a flawless launch " * 160
CLIENTS = 8
REFUSALS = 12
"""In a row, after which a client takes the queue for full."""


def post(url, path, body):
    """Return the status, the headers and the ids that were accepted."""
    request = urllib.request.Request(url + path, body, method="POST")  # noqa: S310  (http on loopback)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  (likewise)
            found = json.loads(answer.read())
            return answer.status, answer.headers, found.get("ids") or [found["id"]]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, []


def fill(url, number):
    """Post singles and batches in turn until nothing is taken any more; return what was."""
    taken, refused, turn = [], 0, 0
    while refused < REFUSALS:
        turn += 1
        if (turn + number) % 2:
            path, body = "/documents", {"content": f"{number} {turn} {TEXT}"}
        else:
            path = "/documents/batch"
            body = [{"content": f"{number} {turn} {n} {TEXT}"} for n in range(40)]
        status, headers, ids = post(url, path, json.dumps(body).encode())
        assert status in (202, 503)
        if status == 503:
            assert int(headers["Retry-After"]) > 0
            refused += 1
            threading.Event().wait(0.02)
        else:
            refused = 0
        taken += ids
    return taken


@pytest.mark.parametrize("maxmemory", ["25mb", "64mb"])
def test_a_small_redis_never_runs_out_of_memory_and_nothing_accepted_is_lost(
    make_system, database_url, make_valkey, maxmemory
):
    server = make_valkey(maxmemory=maxmemory)
    client = redis.Redis.from_url(server.url)
    urls = []
    for _ in range(2):
        system = make_system(database_url, server.url)
        system.start_web()
        urls.append(system.url)
    peak = [0]
    done = threading.Event()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], client.info("memory")["used_memory"])

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(CLIENTS) as pool:
        filled = list(pool.map(lambda n: fill(urls[n % 2], n), range(CLIENTS)))
    accepted = {one for ids in filled for one in ids}
    # Less than half of it in use would be caution at the users' expense.
    assert peak[0] > client.info("memory")["maxmemory"] * 0.5
    assert len(accepted) > 500

    system.start("worker", "--ingest-processes", "1")
    assert until(lambda: not client.hlen("docyard:ingest.msgs"), 60), system.logs()
    assert until(lambda: post(urls[0], "/documents", b'{"content": "again"}')[0] == 202, 10)
    done.set()
    watching.join()
    assert peak[0] < client.info("memory")["maxmemory"]
    assert "errorstat_OOM" not in client.info("errorstats")
    client.close()
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        stored = {str(row[0]) for row in connection.execute("SELECT id FROM documents")}
    assert accepted <= stored


def test_what_is_larger_than_redis_is_refused_at_once_and_leaves_room_to_others(
    make_system, database_url, make_valkey
):
    system = make_system(database_url, make_valkey(maxmemory="12mb").url)
    system.start_web()
    large = json.dumps([{"content": "x" * 7_000_000}, {"content": "y" * 7_000_000}]).encode()
    assert post(system.url, "/documents/batch", large)[0] == 413
    assert post(system.url, "/documents", b'{"content": "small"}')[0] == 202
