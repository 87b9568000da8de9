"""The commands for people: status, logs, reset, listen and demo."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from app.cli.main import COMMANDS, commands
from app.domain.documents import DocumentInput
from app.domain.signing import new_secret, sign
from app.local.errors import AddressUnusable, FolderBusy, FolderForeign, InstanceRefused
from app.local.folder import PROJECT, DataFolder
from app.local.instance import Instance, note_instance
from app.local.processes import StopRule, start_stamp

EXAMPLES = sorted((PROJECT / "examples" / "documents").glob("*.json"))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> DataFolder:
    folder = DataFolder(tmp_path / "d")
    folder.claim()
    (folder.path / "run").mkdir()
    (folder.path / "logs").mkdir()
    monkeypatch.setenv("DOCYARD_DATA", str(folder.path))
    for name in ("ADMIN_API_KEY", "VERIFICATION_KEY"):
        monkeypatch.delenv(name, raising=False)
    return folder


def run(*arguments: str, **options):
    return CliRunner().invoke(
        commands(arguments[0]), list(arguments), catch_exceptions=False, **options
    )


class StandInInstance(ThreadingHTTPServer):
    """Takes documents and destinations, and delivers one to the other.

    Attributes:
        asked: method, path and authorization of every request.
        secret: signs what is delivered, instead of the destination's own.
        lost: categories that are never delivered.
        refuse: why every POST is refused.
    """

    daemon_threads = False  # their connections are closed when the test is over

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.delivering: list[threading.Thread] = []
        self.destinations: dict[str, dict] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.secret: str | None = None
        self.lost: set[str] = set()
        self.refuse: str | None = None

    def deliver(self, document: dict) -> None:
        labels = {json.loads(file.read_text())["content"]: file.stem for file in EXAMPLES}
        category = labels.get(document["content"])
        if category in self.lost:
            return
        data = document | {"category": category, "confidence": 0.875}
        for destination in list(self.destinations.values()):
            secret = self.secret or destination["secret"]
            for _ in range(2):  # a repeat, as after a lost answer; the demo may be over by then
                with contextlib.suppress(OSError):
                    post_webhook(
                        destination["url"], secret, {"data": data}, f"msg_{document['id']}"
                    )


class _Handler(BaseHTTPRequestHandler):
    server: StandInInstance

    def _answer(self, status: int, body: object = None) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"" if body is None else json.dumps(body).encode())

    def _note(self) -> dict:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        return json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"null")

    def do_GET(self):
        self._note()
        queues = [{"queue": "ingest", "messages": 3, "oldest_seconds": None}]
        answer = {"status": "ready", "durability": "always", "queues": queues}
        self._answer(200, answer if self.path == "/readyz" else {"links": {"a": "/a"}})

    def do_POST(self):
        body = self._note()
        if self.server.refuse:
            self._answer(401, {"title": "Unauthorized", "detail": self.server.refuse})
        elif self.path == "/destinations":
            made = str(uuid.uuid4())
            self.server.destinations[made] = body
            self._answer(201, body | {"id": made})
        else:
            self._answer(202, body)
            thread = threading.Thread(target=self.server.deliver, args=(body,))
            self.server.delivering.append(thread)
            thread.start()

    def do_DELETE(self):
        self._note()
        del self.server.destinations[self.path.rpartition("/")[2]]
        self._answer(204)

    def log_message(self, *_):
        pass


def post_webhook(url: str, secret: str, body: object, webhook_id: str = "msg_1") -> int:
    raw = json.dumps(body).encode()
    now = int(time.time())
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    headers = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secret, webhook_id, now, raw),
    }
    connection.request("POST", "/", raw, headers)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.fixture
def instance(folder):
    server = StandInInstance()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    note_instance(
        folder,
        Instance(
            address=f"http://127.0.0.1:{server.server_port}",
            database=None,
            queue="unix:///somewhere",
            pid=os.getpid(),
            stamp=start_stamp(os.getpid()),
        ),
    )
    yield server
    server.shutdown()
    server.server_close()
    for one in (thread, *server.delivering):
        one.join()


def test_a_command_imports_only_what_it_needs():
    # FastAPI, scikit-learn, SQLAlchemy, … would each cost a part of the five seconds.
    shows = (
        "import sys; from app.cli.main import commands; commands('up');"
        "print([m for m in ('fastapi', 'sklearn', 'sqlalchemy', 'aiohttp', 'pydantic', 'numpy',"
        " 'alembic', 'dramatiq') if m in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", shows], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert said == "[]\n"


def test_help_lists_every_command():
    said = CliRunner().invoke(commands(None), ["--help"]).output
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", said)


def test_an_error_of_ours_is_one_sentence_and_no_trace(folder):
    folder.delete()
    done = subprocess.run(
        [sys.executable, "-m", "app", "demo"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"Nothing is up in {folder.path}. Start it with `make up`.\n"


def test_status_shows_addresses_parts_and_what_readyz_says(folder, instance):
    worker = folder.run.start(
        "worker",
        ["sleep", "60"],
        log=folder.log("worker"),
        rule=StopRule(),
    )
    said = run("status").output
    folder.run.stop_all()
    worker.wait()
    assert f"Docyard at http://127.0.0.1:{instance.server_port}" in said
    assert re.search(r"worker +runs as process \d+", said)
    assert re.search(r"database +the one that DATABASE_URL names", said)
    assert re.search(r"queue +unix:///somewhere", said)
    assert "/readyz answers 200" in said
    assert re.search(r"durability +always", said)
    assert re.search(r"queues.ingest.messages +3", said)
    assert "links" not in said


@pytest.mark.usefixtures("folder")
def test_status_says_when_nothing_is_up():
    done = run("status")
    assert done.exit_code == 1
    assert "Start it with `make up`" in done.output


def test_logs_show_the_end_of_every_part_or_of_one(folder):
    folder.log("web").write_text("".join(f"line {n}\n" for n in range(50)))
    folder.log("worker").write_text("working\n")
    said = run("logs", "-n", "2").output
    assert said == "web      | line 48\nweb      | line 49\nworker   | working\n"
    assert run("logs", "worker").output == "worker   | working\n"
    assert run("logs", "nonsense").exit_code == 2


def test_logs_follow_until_ctrl_c(folder):
    folder.log("web").write_text("before\n")
    with subprocess.Popen(
        [sys.executable, "-m", "app", "logs", "-f"], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout.readline() == "web      | before\n"
        with folder.log("web").open("a") as log:
            log.write("after\n")
        assert following.stdout.readline() == "web      | after\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=10) == 0


def test_reset_asks_and_deletes_only_after_yes(folder):
    (folder.path / "postgres").mkdir()
    assert run("reset", input="n\n").exit_code == 1
    assert (folder.path / "postgres").exists()
    assert run("reset", input="y\n").exit_code == 0
    assert not folder.path.exists()
    assert "nothing to delete" in run("reset").output


def test_reset_leaves_what_is_not_ours(folder):
    (folder.path / "notes.txt").touch()
    assert "Left alone, since it is not ours: notes.txt" in run("reset", "--yes").output
    assert (folder.path / "notes.txt").exists()
    with pytest.raises(FolderForeign):
        run("reset", "--yes")


def test_reset_is_refused_while_the_instance_is_up(folder):
    folder.lock()
    with pytest.raises(FolderBusy):
        run("reset", "--yes")
    folder.unlock()
    assert folder.is_ours


class Listening:
    """``python -m app listen`` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "listen", "--port", "0", *arguments],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines = iter(self.process.stdout)

    def __enter__(self):
        said = ""
        while "Listening on" not in said:
            said = next(self.lines)
        self.url = re.search(r"http://\S+/", said)[0]
        self.how = said
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=10) == 0
        self.process.stdout.close()


@pytest.mark.usefixtures("folder")
def test_listen_shows_what_arrives_and_refuses_what_is_not_signed_right():
    secret = new_secret()
    body = {"data": {"category": "sci.space", "confidence": 0.93, "content": "To\norbit " * 20}}
    with Listening("--secret", secret) as listening:
        assert post_webhook(listening.url, secret, body) == 204
        assert re.search(r"^\S+  sci\.space +93%  To orbit To .*…$", next(listening.lines))
        assert post_webhook(listening.url, secret, body) == 204
        assert next(listening.lines).endswith("…  (again)\n")
        assert post_webhook(listening.url, new_secret(), body) == 401
        assert "REFUSED" in next(listening.lines)
        assert post_webhook(listening.url, secret, ["no envelope"], "msg_2") == 204
        assert "unclassified" in next(listening.lines)


@pytest.mark.usefixtures("folder")
def test_listen_without_a_secret_says_that_it_verifies_nothing():
    with Listening() as listening:
        assert "NOT verifying" in listening.how
        assert post_webhook(listening.url, new_secret(), {"data": {}}) == 204
        next(listening.lines)


@pytest.mark.usefixtures("folder")
def test_listen_refuses_a_key_that_is_none():
    done = run("listen", "--secret", "hunter2")
    assert done.exit_code == 2
    assert "must be whsec_" in done.output


@pytest.mark.usefixtures("folder")
def test_listen_says_when_its_port_is_in_use(instance):
    with pytest.raises(AddressUnusable, match=f"port {instance.server_port}"):
        run("listen", "--port", str(instance.server_port))


def test_listen_registers_itself_with_its_secret_and_removes_itself(instance):
    with Listening("--register") as listening:
        (destination,) = instance.destinations.values()
        assert destination["url"] == listening.url
        assert "verifying signatures" in listening.how
        assert post_webhook(listening.url, destination["secret"], {"data": {}}) == 204
        next(listening.lines)
    assert instance.destinations == {}


def test_demo_shows_each_example_arriving_with_its_category(instance):
    done = run("demo")
    assert done.exit_code == 0, done.output
    rows = re.findall(r"^ *\d+ ms  (\S+) +88%  ", done.output, flags=re.MULTILINE)
    assert sorted(rows) == [file.stem for file in EXAMPLES]
    assert "20 of 20 arrived with a valid signature, 20 in the category" in done.output
    assert instance.destinations == {}, "its destination is gone"
    posted = [path for method, path, _ in instance.asked if method == "POST"]
    assert posted == ["/destinations"] + ["/documents"] * 20


def test_demo_names_what_did_not_arrive(instance):
    instance.lost = {"sci.space"}
    done = run("demo", "--timeout-seconds", "1")
    assert done.exit_code == 1
    assert "19 of 20 arrived" in done.output
    assert "Missing: sci.space.json." in done.output
    assert instance.destinations == {}


def test_demo_counts_wrong_signatures_as_not_arrived(instance):
    instance.secret = new_secret()
    done = run("demo", "--timeout-seconds", "1")
    assert done.exit_code == 1
    assert "0 of 20 arrived" in done.output
    assert "no signature fits" in done.output


def test_demo_sends_the_admin_key_and_shows_why_it_is_refused(instance, monkeypatch):
    monkeypatch.setenv("ADMIN_API_KEY", "secret")
    instance.refuse = "The key is wrong."
    with pytest.raises(InstanceRefused, match=r"answered 401: The key is wrong\."):
        run("demo")
    assert instance.asked[0][2] == "Bearer secret"


def test_the_examples_are_one_valid_document_per_newsgroup():
    assert len(EXAMPLES) == 20
    for file in EXAMPLES:
        DocumentInput.model_validate_json(file.read_bytes())
    assert Path(EXAMPLES[0]).stem == "alt.atheism"
