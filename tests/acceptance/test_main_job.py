"""The main job through the real processes: accepted, classified, stored, delivered, read back."""

from __future__ import annotations

import json
import lzma
import os
import signal
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from standardwebhooks import Webhook

from models.artifact import DEFAULT_PATH, load
from tests.acceptance.conftest import PROJECT, START_SECONDS, children, until

MESSAGES = 1_000


@pytest.fixture(scope="module")
def messages():
    """1,000 messages of the test split where the data is at hand, else the self-written texts."""
    places = [os.environ.get("NEWSGROUPS_DIR"), str(PROJECT.parent / "shared/data/20newsgroups")]
    for place in filter(None, places):
        file = Path(place) / "20news-bydate.ndjson.xz"
        if file.is_file():
            with lzma.open(file, "rt", encoding="utf-8", newline="\n") as stream:
                rows = [json.loads(line) for line in stream]
            test = [row["text"] for row in rows if row["split"] == "test" and row["text"].strip()]
            print(f"\nmessages: {MESSAGES} of the 20 newsgroups test split")  # noqa: T201  (said so)
            return test[:: len(test) // MESSAGES][:MESSAGES]
    file = Path(__file__).parents[1] / "data" / "texts.ndjson"
    own = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    print(f"\nmessages: the {len(own)} self-written texts of tests/data, numbered")  # noqa: T201  (likewise)
    return [f"{own[n % len(own)]} ({n})" for n in range(MESSAGES)]


@pytest.mark.timeout(240)
def test_a_thousand_messages_are_stored_and_received_with_the_models_category(
    make_system, database_url, redis_url, receiver, messages
):
    system = make_system(database_url, redis_url, LOG_LEVEL="debug")
    system.start_web()
    system.start("worker")
    status, destination = system.post("/destinations", {"key": "all", "url": receiver.url})
    assert status == 201

    ids = [str(uuid.uuid4()) for _ in messages]

    def post(pair):
        one, text = pair
        return system.post("/documents", {"id": one, "content": text})[0]

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(post, zip(ids, messages, strict=True))) == {202}
    assert until(lambda: len(receiver.received) >= len(ids), 120), system.logs()

    offline = dict(zip(ids, load(DEFAULT_PATH).classify(messages), strict=True))
    webhook, received = Webhook(destination["secret"]), {}
    for headers, body in receiver.received:
        envelope = webhook.verify(body, {name.lower(): value for name, value in headers.items()})
        data = envelope["data"] if isinstance(envelope, dict) else json.loads(body)["data"]
        received[data["id"]] = data
    assert received.keys() == set(ids)
    for one, text in zip(ids, messages, strict=True):
        assert received[one]["category"] == offline[one].category
        assert received[one]["content"] == text

    url = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(url) as connection:
        stored = dict(connection.execute("SELECT id::text, category FROM documents").fetchall())
        assert stored == {one: offline[one].category for one in ids}
        assert until(
            lambda: (
                connection.execute(
                    "SELECT state, count(*) FROM deliveries GROUP BY state"
                ).fetchall()
                == [("delivered", len(ids))]
            ),
            10,
        )
        chunks = connection.execute("SELECT count(*) FROM receipts").fetchone()[0]
    calls = system.logs().count('"model.called"')
    assert calls <= chunks <= len(ids)


@pytest.mark.timeout(120)
def test_a_document_can_be_read_back_and_deleted(make_system, database_url, redis_url):
    system = make_system(database_url, redis_url)
    system.start_web()
    system.start("worker")
    status, accepted = system.post("/documents", {"content": "The shuttle reached orbit."})
    assert status == 202
    path = f"/documents/{accepted['id']}"
    found = system.get_stored(accepted["id"])
    assert found["content"] == "The shuttle reached orbit."
    assert found["category"]
    assert 0 < found["confidence"] <= 1
    assert system.ask("DELETE", path, None)[0] == 204
    assert system.get(path)[0] == 404


@pytest.mark.timeout(120)
def test_the_worker_stops_in_order_and_leaves_no_process(make_system, database_url, redis_url):
    system = make_system(database_url, redis_url)
    system.start_web()
    worker = system.start("worker", "--worker-max", "1")
    accepted = system.post("/documents", {"content": "one"})[1]
    system.get_stored(accepted["id"])
    started = children(worker.pid)
    assert len(started) == 2
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=30) == 0
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 5)


@pytest.mark.timeout(120)
def test_children_end_when_their_supervisor_is_killed(make_system, database_url, redis_url):
    system = make_system(database_url, redis_url)
    system.start_web()
    worker = system.start("worker", "--worker-max", "1")
    assert until(lambda: len(children(worker.pid)) == 2, START_SECONDS)
    accepted = system.post("/documents", {"content": "one"})[1]
    system.get_stored(accepted["id"])
    started = children(worker.pid)
    worker.kill()
    worker.wait()
    assert until(lambda: not any(_runs(pid) for pid in started), 30)


@pytest.mark.timeout(120)
def test_a_killed_ingest_process_is_replaced_and_loses_nothing(
    make_system, database_url, redis_url
):
    system = make_system(database_url, redis_url)
    system.start_web()
    worker = system.start("worker", "--worker-max", "1")
    assert until(lambda: len(children(worker.pid)) == 2, START_SECONDS)
    killed = children(worker.pid)
    ids = []

    def post():
        status, accepted = system.post("/documents", {"content": f"document {len(ids)}"})
        assert status == 202
        ids.append(accepted["id"])

    post()
    system.get_stored(ids[0])
    for _ in range(100):
        post()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    def replaced():
        post()
        return len(set(children(worker.pid)) - set(killed)) == 2

    assert until(replaced, 60)
    for _ in range(100):
        post()
    for one in ids:
        assert system.get_stored(one)["content"]


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
