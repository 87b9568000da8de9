"""The launcher in a process of its own, with stand-ins for web and worker."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from app.local.folder import PROJECT, DataFolder
from app.local.instance import Instance, note_instance
from app.local.processes import start_stamp
from app.local.servers import PrivateServers
from app.local.sockets import forget_sockets
from tests.local.standin_instance import StandInInstance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOMEWHERE_ELSE = {
    # Named, not reached: what starts no server is tested without one.
    "DATABASE_URL": "postgresql://elsewhere/docyard",
    "REDIS_URL": "redis://elsewhere/0",
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A short folder that ``nobody`` may enter; nothing of it runs after the test."""
    folder = Path(tempfile.mkdtemp(prefix="docyard-t-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    for run in folder.rglob("run"):
        DataFolder(run.parent).run.stop_all()
        forget_sockets(run.parent / "sockets")
    shutil.rmtree(folder)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> DataFolder:
    """A data folder that commands find, with nothing in it."""
    folder = DataFolder(tmp_path / "d")
    folder.claim()
    (folder.path / "run").mkdir()
    (folder.path / "logs").mkdir()
    monkeypatch.setenv("DOCYARD_DATA", str(folder.path))
    for name in ("ADMIN_API_KEY", "VERIFICATION_KEY"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def instance(folder):
    """A stand-in that commands take for the instance of ``folder``."""
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


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with us."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


class Launched:
    """A running launcher."""

    def __init__(
        self,
        folder: Path,
        arguments: tuple[str, ...],
        environment: dict[str, str],
        popen: dict[str, object],
    ) -> None:
        self.folder = DataFolder(folder)
        own = {key: value for key, value in os.environ.items() if key not in SOMEWHERE_ELSE}
        self.process = subprocess.Popen(
            [
                popen.pop("executable", sys.executable),
                "-m",
                "tests.local.launch",
                folder,
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=own | environment,
            **({"cwd": PROJECT} | popen),
        )
        self.said = ""
        self.family: dict[int, str] = {}

    def until(self, text: str) -> str:
        """Read until a line has the text; return that line."""
        for line in self.process.stdout:
            self.said += line
            if text in line:
                return line
        raise AssertionError(f"it never said {text!r}, but:\n{self.said}")

    def up(self) -> str:
        """Wait until everything is up; return its address and note all its processes."""
        address = re.search(r"http://\S+", self.until("up at "))[0]
        self.look_around()
        return address

    def look_around(self) -> dict[int, str]:
        """Note all processes below the launcher."""
        self.family = descendants(self.process.pid)
        return self.family

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; return the exit code."""
        self.said += self.process.stdout.read()
        return self.process.wait(timeout=30)

    def mark(self, name: str) -> int:
        """Return the process id of a part."""
        return next(mark.pid for mark in self.folder.run.marks() if mark.name == name)

    def wait_until_it_speaks(self, part: str, *, seconds: float = 20.0) -> None:
        """Wait until a stand-in has begun to hear signals."""
        end = time.monotonic() + seconds
        while f"{part} speaks" not in self.folder.log(part).read_text():
            assert time.monotonic() < end, f"{part} did not start"
            time.sleep(0.02)

    def wait_until_all_are_gone(self, *, seconds: float = 20.0) -> None:
        """Wait for processes that end by themselves when another one did."""
        deadline = time.monotonic() + seconds
        while self.survivors():
            assert time.monotonic() < deadline, "they never ended"
            time.sleep(0.01)

    def survivors(self) -> list[int]:
        """Return the processes that were there when it was up, and still are."""
        return [pid for pid, stamp in self.family.items() if start_stamp(pid) == stamp]


def descendants(parent: int) -> dict[int, str]:
    """Return all processes below one, with their start stamps."""
    listed = subprocess.run(
        ["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        pid, ppid = map(int, line.split())
        children.setdefault(ppid, []).append(pid)
    found, below = {}, [parent]
    while below:
        for pid in children.get(below.pop(), []):
            below.append(pid)
            if stamp := start_stamp(pid):
                found[pid] = stamp
    return found


@pytest.fixture(scope="session")
def initialised() -> Iterator[Path]:
    """A data folder with an initialised Postgres, to copy: a tenth of the time of initdb."""
    folder = Path(tempfile.mkdtemp(prefix="docyard-t-", dir="/tmp"))
    folder.chmod(0o711)
    data = DataFolder(folder)
    data.claim()
    PrivateServers(data, with_postgres=True, with_valkey=False).postgres.initialise(sync=False)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def launch(place: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Launched]]:
    """``launch(web="web-dies", **environment)``; without servers unless ``servers=True``.

    With servers it begins on an initialised folder, with ``servers="fresh"`` on none.
    """
    launched: list[Launched] = []

    def start(
        *,
        folder: Path | None = None,
        port: int = 0,
        web: str = "web",
        worker: str = "worker",
        servers: bool | Literal["fresh"] = False,
        popen: dict[str, object] | None = None,
        **environment: str,
    ) -> Launched:
        folder = folder or place / "d"
        if servers is True and not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["cp", "-Rp", request.getfixturevalue("initialised"), folder], check=True
            )
        given = environment if servers else SOMEWHERE_ELSE | environment
        launched.append(Launched(folder, (str(port), web, worker), given, popen or {}))
        return launched[-1]

    yield start
    for one in launched:
        one.signal(signal.SIGKILL)
        one.process.wait()
        # Quicker than an orderly end by the guard, which the tests look at themselves.
        for mark in one.folder.run.marks():
            if mark.alive:
                os.kill(mark.pid, signal.SIGKILL)
        one.process.stdout.close()
