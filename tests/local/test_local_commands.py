"""The commands for people: status, logs, reset and demo."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import COMMANDS, commands
from app.domain.documents import DocumentInput
from app.domain.signing import new_secret
from app.local.addresses import free_address
from app.local.errors import FolderBusy, FolderForeign, InstanceRefused
from app.local.folder import PROJECT
from app.local.processes import StopRule
from tests.acceptance.conftest import until
from tests.local.standin_instance import EXAMPLES


def run(*arguments: str, **options):
    return CliRunner().invoke(
        commands(arguments[0]), list(arguments), catch_exceptions=False, **options
    )


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


@pytest.mark.parametrize("command", [["serve"], ["listen", "--no-register"]])
def test_a_command_whose_streams_are_closed_works_and_ends_as_ever(command):
    port = free_address("127.0.0.1", 0)
    closed = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-m", "app", *command]
    with subprocess.Popen(
        [*closed, "--port", str(port)], cwd=PROJECT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert until(lambda: answers(port) or process.poll() is not None, 60)
        for _ in range(10):
            process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    assert process.returncode in {0, 130, -signal.SIGINT}, said
    assert "Traceback" not in said


def answers(port):
    with socket.socket() as client:
        if client.connect_ex(("127.0.0.1", port)) != 0:
            return b""
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return client.recv(100)


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


@pytest.mark.parametrize("private", [True, False])
def test_reset_keeps_the_key_of_a_database_elsewhere(folder, monkeypatch, private):
    key = folder.encryption_key()
    if private:
        (folder.path / "postgres").mkdir()
        monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/docyard")
    assert "Kept encryption.key" in run("reset", "--yes").output
    assert not (folder.path / "postgres").exists()
    # The next `up` goes on with it.
    folder.claim()
    assert folder.encryption_key() == key


def test_reset_deletes_the_key_with_the_only_database_that_it_was_for(folder):
    folder.encryption_key()
    (folder.path / "postgres").mkdir()
    run("reset", "--yes")
    assert not folder.path.exists()


def test_reset_is_refused_while_the_instance_is_up(folder):
    folder.lock()
    with pytest.raises(FolderBusy):
        run("reset", "--yes")
    folder.unlock()
    assert folder.is_ours


def test_demo_shows_each_example_arriving_with_its_category(instance):
    done = run("demo")
    assert done.exit_code == 0, done.output
    rows = re.findall(r"^ *\d+ ms  (\S+) +88%  ", done.output, flags=re.MULTILINE)
    assert sorted(rows) == [file.stem for file in EXAMPLES]
    assert "20 of 20 arrived with a valid signature, 20 in the category" in done.output
    assert instance.destinations == {}, "its destination is gone"
    posted = [path for method, path, _ in instance.asked if method == "POST"]
    assert posted == ["/destinations"] + ["/documents"] * 20


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{bad", "a.json is no JSON object"),
        ("a.json", "[]", "a.json is no JSON object"),
        ("a.json", b"\xff", "a.json is no JSON object"),
        ("a.txt", "{}", "there are no JSON files in"),
    ],
)
def test_demo_refuses_what_it_cannot_post(tmp_path, name, text, said):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    result = run("demo", "--folder", str(tmp_path))
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


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
