"""What is set aside: kept, shown, tried again as the version that it was, and dropped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
import redis
from sqlalchemy import text

from app.domain.documents import DEFAULT_TENANT
from app.queue.connection import connect
from app.queue.dead_letters import move_dead_letters
from app.queue.messages import Chunk, chunk_message
from app.storage import dead_letters, rejected
from app.storage.counters import totals
from app.storage.dead_letters import DeadMessage
from app.storage.destinations import DestinationCache
from app.storage.engine import make_engine, transaction
from app.storage.purging import purge
from app.storage.receipts import begin_tries
from app.storage.rejected import Rejection
from tests.acceptance.conftest import until
from tests.worker.test_worker_parts import FakeModel, chunk, rows
from worker.ingest import Ingest, ingest
from worker.isolation import IsolatedClassifier

PROJECT = Path(__file__).parents[2]
SEQ = 1_790_000_000_000_000


@pytest.fixture
def engine(database_url):
    made = make_engine(database_url, application_name="test")
    yield made
    made.dispose()


@pytest.fixture
def parts(engine):
    return Ingest(
        engine=engine,
        model=FakeModel(usable=False),
        isolated=IsolatedClassifier(Path("nowhere")),
        destinations=DestinationCache(),
        ring=lambda *_: None,
        stopping=threading.Event(),
    )


def refuse(engine, document, *, seq=SEQ, stage="ingest", document_id=None):
    rejection = Rejection(
        seq=seq,
        document_id=document_id,
        reason="for the test",
        body=json.dumps(document).encode(),
        stage=stage,
    )
    with transaction(engine) as connection:
        rejected.reject(connection, DEFAULT_TENANT, uuid.uuid4(), [rejection])


def queued(web):
    """Take what is queued, as the worker would."""
    client = redis.Redis.from_url(web.settings.redis_url)
    bodies = [json.loads(one) for one in client.hvals("docyard:ingest.msgs")]
    counts = client.hget("docyard:queued", "ingest"), client.hget("docyard:accepted", "ingest")
    client.delete("docyard:ingest", "docyard:ingest.msgs")
    client.close()
    chunks = [
        Chunk(
            tenant_id=one["kwargs"]["tenant_id"],
            chunk_id=uuid.UUID(one["kwargs"]["chunk_id"]),
            seq=one["kwargs"]["seq"],
            documents=one["kwargs"]["documents"],
        )
        for one in bodies
    ]
    return chunks, tuple(int(one or 0) for one in counts)


def kept(engine):
    return rows(engine, "SELECT seq, reason FROM rejected_documents ORDER BY seq")


def test_a_retried_document_stays_until_it_is_stored(web, engine, parts):
    document = {"id": str(uuid.uuid4()), "content": "text"}
    refuse(engine, document)
    assert web.ask("POST", f"/rejected/{SEQ}/retry").status == 202
    assert kept(engine) == [(SEQ, "for the test")]
    assert web.ask("GET", f"/rejected/{SEQ}").json["retried_at"]
    (again,), counts = queued(web)
    assert counts == (1, 1)
    assert (again.seq, again.documents) == (SEQ, [document])
    ingest(parts, [again])
    assert rows(engine, "SELECT seq, content FROM documents") == [(SEQ, "text")]
    assert kept(engine) == []
    with transaction(engine) as connection:
        counters = totals(connection, DEFAULT_TENANT)
    assert (counters["rejected.created"], counters["rejected.removed"]) == (1, 1)
    assert web.ask("POST", f"/rejected/{SEQ}/retry").status == 404


def test_a_document_that_is_retried_twice_is_stored_once_though_both_come_together(
    web, engine, parts
):
    destination = json.dumps({"key": "a", "url": "http://example.com/hook"}).encode()
    web.ask("POST", "/destinations", destination, {"Content-Type": "application/json"})
    refuse(engine, {"id": str(uuid.uuid4()), "content": "text"})
    for _ in range(2):
        assert web.ask("POST", f"/rejected/{SEQ}/retry").status == 202
    twins, _ = queued(web)
    ingest(parts, twins)
    assert kept(engine) == []
    assert rows(engine, "SELECT seq, state FROM deliveries") == [(SEQ, "pending")]
    with transaction(engine) as connection:
        counters = totals(connection, DEFAULT_TENANT)
    assert (counters["documents.stored"], counters["documents.stale"]) == (1, 1)
    assert web.ask("GET", "/ledger").json["adds_up"]


def test_a_retry_that_redis_did_not_take_does_not_wait(
    serve, database_url, engine, parts, make_valkey
):
    valkey = make_valkey()
    web = serve(database_url=database_url, redis_url=valkey.url)
    refuse(engine, {"id": str(uuid.uuid4()), "content": "text"})
    valkey.kill()
    assert web.ask("POST", f"/rejected/{SEQ}/retry").status == 503
    assert web.ask("GET", f"/rejected/{SEQ}").json["retried_at"] is None
    valkey.start()
    assert web.ask("POST", f"/rejected/{SEQ}/retry").status == 202
    assert web.ask("GET", f"/rejected/{SEQ}").json["retried_at"]
    ingest(parts, queued(web)[0])
    assert kept(engine) == []


@pytest.mark.parametrize("content", ["text", 7])
def test_what_is_dropped_while_its_retry_is_queued_stays_out(web, engine, parts, content):
    for seq in (SEQ, SEQ + 1):
        refuse(engine, {"id": str(uuid.uuid4()), "content": content}, seq=seq)
        assert web.ask("POST", f"/rejected/{seq}/retry").status == 202
    assert web.ask("DELETE", f"/rejected/{SEQ}").status == 204
    both, _ = queued(web)
    ingest(parts, both)
    stored = [seq for (seq,) in rows(engine, "SELECT seq FROM documents")]
    assert stored + [seq for seq, _ in kept(engine)] == [SEQ + 1]
    with transaction(engine) as connection:
        counters = totals(connection, DEFAULT_TENANT)
    settled = [counters.get(f"documents.{name}", 0) for name in ("stored", "stale", "rejected")]
    assert settled == [len(stored), 1, 1 - len(stored)]


def test_a_retried_document_that_fails_again_stays_with_the_new_reason(web, engine, parts):
    refuse(engine, {"id": str(uuid.uuid4()), "content": 7})
    web.ask("POST", f"/rejected/{SEQ}/retry")
    (again,), _ = queued(web)
    ingest(parts, [again])
    assert kept(engine) == [(SEQ, "cannot be read: TypeError: content is not a string")]
    assert web.ask("GET", f"/rejected/{SEQ}").json["retried_at"] is None


def test_what_the_classifier_died_of_is_retried_apart_from_the_start(web, engine):
    refuse(engine, {"id": str(uuid.uuid4()), "content": "kills"}, stage="classifier")
    web.ask("POST", f"/rejected/{SEQ}/retry")
    (again,), _ = queued(web)
    with transaction(engine) as connection:
        tries = begin_tries(connection, DEFAULT_TENANT, [again.chunk_id])
    assert tries[again.chunk_id].number == 2


def test_a_retried_document_does_not_replace_a_newer_version(web, engine, parts):
    document_id = str(uuid.uuid4())
    refuse(engine, {"id": document_id, "content": "old"}, seq=SEQ - 1)
    ingest(parts, [chunk({"id": document_id, "content": "new"})])
    web.ask("POST", f"/rejected/{SEQ - 1}/retry")
    ingest(parts, queued(web)[0])
    assert rows(engine, "SELECT content FROM documents") == [("new",)]
    assert rows(engine, "SELECT stale FROM receipts WHERE retry") == [(1,)]
    assert kept(engine) == []


def test_a_purge_and_the_retry_of_what_could_not_be_routed_do_not_deadlock(web, engine, parts):
    one = uuid.uuid4()
    document = {"id": str(one), "content": "text"}
    ingest(parts, [chunk(document)])
    [(seq,)] = rows(engine, "SELECT seq FROM documents")
    refuse(engine, document, seq=seq, stage="router", document_id=one)
    answers = []
    retry = threading.Thread(
        target=lambda: answers.append(web.ask("POST", f"/rejected/{seq}/retry").status)
    )
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with transaction(engine) as connection:
        connection.execute(text("SELECT FROM documents FOR UPDATE"))  # as a purge begins
        retry.start()
        with engine.connect() as observer:
            while observer.execute(waiting).scalar_one() == 0:
                observer.rollback()
        assert purge(connection, DEFAULT_TENANT, one, seq).rejected == 1
    retry.join()
    assert answers == [404]


def test_what_is_set_aside_is_listed_in_pages_shown_and_dropped(web, engine):
    for number in range(3):
        refuse(engine, {"id": "seven", "content": str(number)}, seq=SEQ + number)
    first = web.ask("GET", "/rejected?limit=2")
    assert [one["id"] for one in first.json["items"]] == [str(SEQ + 2), str(SEQ + 1)]
    path = first.headers["link"].split(">")[0].removeprefix("<")
    rest = web.ask("GET", path).json
    assert ([one["id"] for one in rest["items"]], rest["next_cursor"]) == ([str(SEQ)], None)
    shown = web.ask("GET", f"/rejected/{SEQ}").json
    assert json.loads(shown["body"]) == {"id": "seven", "content": "0"}
    assert web.ask("DELETE", f"/rejected/{SEQ}").status == 204
    assert web.ask("DELETE", f"/rejected/{SEQ}").json["code"] == "rejected_not_found"
    assert len(kept(engine)) == 2


def bury(engine, body, message_id="m1"):
    letter = DeadMessage(
        message_id=message_id, queue="ingest", body=body, reason="Fault: no", documents=1
    )
    with transaction(engine) as connection:
        dead_letters.store(connection, DEFAULT_TENANT, [letter])


def test_a_dead_letter_goes_back_to_its_queue_and_counts_once(web, engine, parts):
    made = chunk_message(
        "ingest", DEFAULT_TENANT, [b'{"id":"%s","content":"x"}' % uuid.uuid4().hex.encode()]
    )
    bury(engine, made.head + str(SEQ).encode() + made.tail)
    assert web.ask("GET", "/dead-letters").json["items"][0]["documents"] == 1
    assert web.ask("POST", "/dead-letters/m1/retry").status == 202
    (again,), counts = queued(web)
    assert counts == (1, 0)  # it was accepted before
    assert (again.chunk_id, again.seq) == (made.chunk_id, SEQ)
    ingest(parts, [again])
    ingest(parts, [again])
    assert rows(engine, "SELECT count(*) FROM documents") == [(1,)]
    assert web.ask("GET", "/dead-letters/m1").json["code"] == "dead_letter_not_found"


def test_a_dead_letter_is_put_back_or_dropped_never_both(web, engine):
    made = chunk_message("ingest", DEFAULT_TENANT, [b'{"content":"x"}'])
    bury(engine, made.head + str(SEQ).encode() + made.tail)
    client = redis.Redis.from_url(web.settings.redis_url)
    answers = {}

    def ask(method, path):
        answers[method] = web.ask(method, path).status

    client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    threads = [threading.Thread(target=ask, args=("POST", "/dead-letters/m1/retry"))]
    threads[0].start()
    while not any(one["cmd"] == "eval" for one in client.client_list()):
        pass
    threads.append(threading.Thread(target=ask, args=("DELETE", "/dead-letters/m1")))
    threads[1].start()
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    assert until(lambda: "DELETE" in answers or rows(engine, waiting))
    client.execute_command("CLIENT", "UNPAUSE")
    for thread in threads:
        thread.join()
    client.close()
    with transaction(engine) as connection:
        dropped = totals(connection, DEFAULT_TENANT).get("documents.dropped", 0)
    assert (answers, dropped) == ({"POST": 202, "DELETE": 404}, 0)
    assert len(queued(web)[0]) == 1


@pytest.mark.parametrize("settle", ["DELETE /dead-letters/{}", "POST /dead-letters/{}/retry"])
def test_a_dead_letter_that_redis_could_not_let_go_of_is_kept_once(
    serve, database_url, engine, make_valkey, settle
):
    """Somebody drops it, or puts it back, before Redis is there again."""
    valkey = make_valkey()
    web = serve(database_url=database_url, redis_url=valkey.url)
    made = chunk_message("ingest", DEFAULT_TENANT, [b'{"content":"x"}'])
    message_id, body = made.redis_message_id, made.head + str(SEQ).encode() + made.tail

    def keep(letters):
        kept = [DeadMessage(**one._asdict(), documents=1) for one in letters]
        with transaction(engine) as connection:
            dead_letters.store(connection, DEFAULT_TENANT, kept)

    def keep_and_fail(letters):
        keep(letters)
        valkey.kill()

    with connect(valkey.url) as client:
        client.zadd("docyard:ingest.XQ", {message_id: 1})
        client.hset("docyard:ingest.XQ.msgs", message_id, body)
        with pytest.raises(redis.ConnectionError):
            move_dead_letters(client, "docyard", ["ingest"], keep_and_fail)
        valkey.start()
        assert web.ask(*settle.format(message_id).split()).status in {202, 204}
        assert move_dead_letters(client, "docyard", ["ingest"], keep) == 1
    assert rows(engine, "SELECT count(*) FROM dead_letters") == [(0,)]
    with transaction(engine) as connection:
        counted = totals(connection, DEFAULT_TENANT)
    assert (counted["dead_letters.created"], counted["dead_letters.removed"]) == (1, 1)


def test_a_dead_letter_that_is_no_message_cannot_be_retried_only_dropped(web, engine):
    bury(engine, b"\xff")
    assert web.ask("GET", "/dead-letters/m1").json["body_base64"] == "/w=="
    refused = web.ask("POST", "/dead-letters/m1/retry")
    assert (refused.status, refused.json["code"]) == (409, "not_retryable")
    assert web.ask("DELETE", "/dead-letters/m1").status == 204
    assert rows(engine, "SELECT count(*) FROM dead_letters") == [(0,)]


@pytest.mark.timeout(300)  # A dozen processes.
def test_the_same_from_the_command_line(web, engine):
    refuse(engine, {"id": "seven", "content": "0"})
    readable = uuid.uuid4()
    document = {"id": str(readable), "content": "1"}
    refuse(engine, document, seq=SEQ + 1, stage="classifier", document_id=readable)
    bury(engine, b"no message")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "app", *arguments],
            cwd=PROJECT,
            env={
                **os.environ,
                "DATABASE_URL": web.settings.database_url,
                "REDIS_URL": web.settings.redis_url,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    listed = [line.split()[:3] for line in run("rejected", "list").stdout.splitlines()]
    assert listed == [
        [str(SEQ + 1), str(readable), "classifier"],
        [str(SEQ), "-", "ingest"],
    ]
    assert json.loads(run("rejected", "show", str(SEQ)).stdout) == {"id": "seven", "content": "0"}
    assert run("rejected", "show", str(2**63)).returncode == 2, "no number of ours"
    assert run("rejected", "drop", str(SEQ)).returncode == 0
    assert run("rejected", "retry", "--all").stdout == f"{SEQ + 1} retried\n"
    assert [one.seq for one in queued(web)[0]] == [SEQ + 1]
    partly = run("rejected", "retry", str(SEQ), str(SEQ + 1))
    assert (partly.returncode, partly.stdout) == (1, f"{SEQ + 1} retried\n")
    assert partly.stderr.startswith(f"{SEQ}: No document")
    partly = run("rejected", "drop", str(SEQ), str(SEQ + 1))
    assert (partly.returncode, partly.stdout) == (1, f"{SEQ + 1} dropped\n")
    assert partly.stderr.startswith(f"{SEQ}: No document")
    assert (none := run("rejected", "list")).stderr == "There are none.\n"
    assert (none.returncode, none.stdout) == (0, "")
    assert "ingest" in run("dead-letters", "list").stdout
    refused = run("dead-letters", "retry", "m1")
    assert (refused.returncode, "no message" in refused.stderr) == (1, True)
    partly = run("dead-letters", "drop", "m0", "m1")
    assert (partly.returncode, partly.stdout) == (1, "m1 dropped\n")
    assert partly.stderr.startswith("m0: No")
