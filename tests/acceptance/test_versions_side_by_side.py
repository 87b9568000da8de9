"""A deploy has two releases at work on one database and one queue; so has a rollback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.acceptance.conftest import Receiver, until
from tests.acceptance.releases import THIS, unpack_previous
from tests.storage.migrating import make_one_behind

LOUD = re.compile(r'"level": ?"(error|critical)"|Traceback|Undefined|Violation|TypeError')
"""What neither writes to its log while they get along."""
REASON = re.compile(r"(?:[A-Z]\w+Error|psycopg\.errors\.\w+): [^\\]{1,200}")


CANNOT_GO_BACK = "0015"
"""The last release whose `migrate` fails on a newer schema."""


class FussyReceiver(Receiver):
    """Verifies, and refuses every fifth webhook once: whoever is there then tries again."""

    def __init__(self):
        super().__init__()
        self.secret = ""
        self.forged = []
        self.taken = []
        self._refused = set()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        one = headers["webhook-id"]
        try:
            Webhook(self.secret).verify(body, headers)
        except WebhookVerificationError as error:
            self.forged.append(f"{one}: {error}")
        if sum(one.encode()) % 5 == 0 and one not in self._refused:
            self._refused.add(one)
            return web.Response(status=503)
        data = json.loads(body)["data"]
        self.taken.append((one, (data["id"], data["content"])))
        return web.Response()


class Deploy:
    """Two releases over the same servers, and what either has accepted."""

    def __init__(self, old, new, database_url, receiver):
        self.old, self.new = old, new
        self.receiver = receiver
        self.expected = {}
        self._url = conninfo(database_url)

    def rows(self, statement):
        with psycopg.connect(self._url) as connection:
            return connection.execute(statement).fetchall()

    def add_destination(self, site):
        given = {"key": "all", "url": self.receiver.url, "retry": {"schedule_seconds": [1] * 9}}
        status, made = site.post("/destinations", given)
        assert status == 201, site.logs()
        self.receiver.secret = made["secret"]

    def use(self, site):
        """Do what clients do with a release's web process, and see it through."""
        singles, batch, lines = ([document() for _ in range(count)] for count in (20, 10, 30))
        one = str(uuid.uuid4())
        versions = [{**document(), "id": one, "version": number} for number in (1, 3, 2)]
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda each: site.post("/documents", each), singles)
            assert {status for status, _ in answers} == {202}, site.logs()
        assert site.post("/documents/batch", batch)[0] == 202
        ndjson = b"\n".join(json.dumps(line).encode() for line in lines)
        assert site.post("/documents/bulk", ndjson)[1]["accepted"] == len(lines)
        assert [site.post("/documents", each)[0] for each in versions] == [202] * 3
        accepted = (*singles, *batch, *lines, versions[1])

        # A question over the queue to whichever ingest process there is, and its answer.
        asked = {"content": "The shuttle reached orbit."}
        preview = until(lambda: site.post("/routes/preview", asked)[1].get("routes"))
        assert [one["destination_key"] for one in preview or ()] == ["all"], site.logs()
        self._look_back(site)
        self.expected |= {each["id"]: each["content"] for each in accepted}
        assert self.settle() == {}

    def _look_back(self, site):
        """Read, delete and deliver again what may be the other release's work."""
        for one in list(self.expected)[:1]:
            assert site.get(f"/documents/{one}")[1]["content"] == self.expected.pop(one)
            assert site.ask("DELETE", f"/documents/{one}", None)[0] == 204
        for one in list(self.expected)[:1]:
            [done] = site.get(f"/deliveries?document_id={one}")[1]["items"]
            assert site.post(f"/deliveries/{done['id']}/replay", {})[0] == 202

    def settle(self):
        """Wait until all is stored and delivered; return what is not, or what went wrong."""
        until(lambda: self.wrong() or (self.arrived() and not self.missing()), 30)
        return self.wrong() or self.missing()

    def arrive(self, count):
        """Wait for so many webhooks more."""
        enough = len(self.receiver.taken) + count
        until(lambda: self.wrong() or len(self.receiver.taken) >= enough)
        assert self.wrong() == {}
        assert len(self.receiver.taken) >= enough, self.missing()

    def arrived(self):
        return self.expected.items() <= {data for _, data in self.receiver.taken}

    def wrong(self):
        found = {"forged": self.receiver.forged, "log": loud(self.old) + loud(self.new)}
        return {name: some[:3] for name, some in found.items() if some}

    def missing(self):
        stored = dict(self.rows("SELECT id::text, content FROM documents"))
        arrived = {data for _, data in self.receiver.taken}
        open_ones = "SELECT count(*) FROM deliveries WHERE state IN ('pending', 'held')"
        counts = {
            "not stored": len(self.expected.items() - stored.items()),
            "not delivered": len(self.expected.items() - arrived),
            "stored for no reason": len(stored.keys() - self.expected.keys()),
            "open": self.rows(open_ones)[0][0],
        }
        return {name: count for name, count in counts.items() if count}


def conninfo(url):
    return url.replace("postgresql+psycopg://", "postgresql://")


def document():
    one = str(uuid.uuid4())
    return {"id": one, "content": f"The shuttle reached orbit {one}."}


def loud(system):
    """Return the lines of a release's logs that say that something went wrong, shortened."""
    logs = (log.read_text().splitlines() for log in sorted(system.folder.glob("*.log")))
    lines = [line for log in logs for line in log if LOUD.search(line)]
    return [" ".join(REASON.findall(line)) or line[:300] for line in lines]


def start(system, *, site=True, worker=True):
    """Start a release's processes, both at once; return them when they do their work."""
    started = []
    if worker:
        started.append(
            system.start("worker", "--ingest-processes", "1", "--delivery-processes", "1")
        )
        log = system.folder / f"worker-{len(system.processes) - 1}.log"
    if site:
        started.append(system.start_web())
    if worker:
        assert until(lambda: log.read_text().count('"child.ready"') == 2, 30), system.logs()
    return started


def stop(*processes):
    for process in processes:
        process.terminate()
    # A web process without a supervisor ends by the signal.
    assert {process.wait(30) for process in processes} <= {0, -signal.SIGTERM}


@contextmanager
def clients(deploy, site):
    """Post one document after the other while the block runs."""
    done = threading.Event()

    def post():
        while not done.wait(0.02):
            one = document()
            assert site.post("/documents", one)[0] == 202
            deploy.expected[one["id"]] = one["content"]

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(post) for _ in range(2)]
        try:
            yield
        finally:
            done.set()
    for one in running:
        one.result()


def verify(system):
    return subprocess.run(
        [sys.executable, "-m", "app", "verify"],
        cwd=system.code,
        env=system.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.timeout(240)
def test_what_either_release_accepts_either_stores_and_delivers(
    make_system, empty_database_url, redis_url, tmp_path
):
    previous = unpack_previous(tmp_path / "previous")
    assert f"revision {previous.revision}" in previous.migrate(empty_database_url).stdout
    with FussyReceiver() as receiver:
        old = make_system(empty_database_url, redis_url, code=previous.folder)
        new = make_system(empty_database_url, redis_url)
        deploy = Deploy(old, new, empty_database_url, receiver)
        old_worker, old_site = start(old)
        deploy.add_destination(old)

        # The release phase: the schema of the new one under the processes of the old one.
        with clients(deploy, old):
            deploy.arrive(20)
            done = THIS.migrate(empty_database_url)
            assert f"revision {THIS.revision}" in done.stdout, done.stderr
            deploy.arrive(20)
        assert old.get("/readyz")[0] == 200

        # The platform replaces one process after the other.
        new_worker, new_site = start(new)
        deploy.use(new)
        stop(old_worker)
        deploy.use(old)

        # And brings the old release back, to the schema of the new one.
        stop(new_worker, old_site)
        if previous.revision > CANNOT_GO_BACK:
            assert previous.migrate(empty_database_url).returncode == 0
        start(old)
        assert old.get("/readyz")[0] == 200
        deploy.use(new)
        stop(new_site)
        deploy.use(old)

        assert deploy.rows("SELECT reason FROM rejected_documents") == []
        assert deploy.rows("SELECT reason FROM dead_letters") == []
        # Each delivery has arrived, and none twice: nobody was killed here.
        ends = Counter(dict(deploy.rows("SELECT state, count(*) FROM deliveries GROUP BY state")))
        arrived = Counter(one for one, _ in receiver.taken)
        assert ends.keys() <= {"delivered", "superseded"}
        assert (len(arrived), arrived.total()) == (ends["delivered"], ends["delivered"])
    found = verify(new)
    assert found.returncode == 0, found.stdout


@pytest.mark.timeout(120)
def test_a_release_before_its_migration_takes_in_and_waits(
    make_system, empty_database_url, redis_url
):
    before = make_one_behind(empty_database_url)
    system = make_system(empty_database_url, redis_url)
    system.start("worker", "--ingest-processes", "1", "--delivery-processes", "1")
    (log,) = system.folder.glob("worker-*.log")
    system.start_web()
    assert until(lambda: log.read_text().count('"worker.waits"') == 2), system.logs()
    status, ready = system.get("/readyz")
    assert (status, list(ready["problems"])) == (503, ["postgres"])
    assert all(one in ready["problems"]["postgres"] for one in (before, THIS.revision))
    accepted = [system.post("/documents", document()) for _ in range(10)]
    assert [status for status, _ in accepted] == [202] * 10
    # On the newest schema that would be there within milliseconds.
    path = f"/documents/{accepted[0][1]['id']}"
    assert system.get(path, Prefer="wait=2")[0] in {404, 503}

    assert THIS.migrate(empty_database_url).returncode == 0
    for _, one in accepted:
        assert system.get_stored(one["id"])["content"] == one["content"]
    assert system.get("/readyz")[0] == 200
    assert loud(system) == []
    with psycopg.connect(conninfo(empty_database_url)) as connection:
        assert connection.execute("SELECT max(tries) FROM receipts").fetchone() == (1,)
