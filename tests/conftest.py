"""Real servers for the tests: a Postgres and a Valkey per test process, started on first use.

========================= ==========================================================================
``database_url``          a fresh, migrated database of its own; dropped after the test
``empty_database_url``    the same without any table
``postgres_url``          the server's maintenance database (session)
``redis_url``             an emptied Valkey: append-only file, fsync ``always``, ``noeviction``
``make_postgres(**settings)``  a server of the test's own, to kill, pause and start again
``make_valkey(**config)``      likewise; ``maxmemory="10mb"``, ``enable_debug_command="yes"``, …
========================= ==========================================================================

A guard process ends the servers and removes their folders even when a test process is killed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import structlog
from hypothesis import settings

# `pytest` alone puts only tests/ on the path; `python -m pytest` the project too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.local.binaries import find_postgres, find_valkey
from app.local.guard import start_guard
from app.local.postgres import PostgresServer
from app.local.processes import RunFolder
from app.local.valkey import ValkeyServer, ask

# `make fuzz` draws anew, and more examples than the suite, which draws the same every time and so
# fails for what was changed only. No deadline: a busy machine is no fault of ours.
_FUZZ_CASES = int(os.environ.get("FUZZ_CASES", "0"))
settings.register_profile(
    "docyard",
    parent=settings(),
    deadline=None,
    derandomize=not _FUZZ_CASES,
    max_examples=max(100, _FUZZ_CASES // 10),
)
settings.load_profile("docyard")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A shell without job control starts what goes into the background with SIGINT ignored, and so would
# be the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# As in production: the pretty form prints local variables, which takes a thread that logs an error
# seconds of a busy machine.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)


# Processes that tests start are to compile what they import once, not each of them anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: half of the time a test waits for processes that it started."""
    return 2 * min(4, os.cpu_count() or 1)


_FAST = {
    # Killing a server's process loses nothing that was written, with or without fsync.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
}
_OWN_FILES = {"dynamic_shared_memory_type": "mmap"}
"""A killed server leaves its shared memory behind; in its folder it goes with the folder."""


_ROOM_BYTES = 4 << 30
_IPC_RMID = 0
"""Of ``sys/ipc.h``, here and on macOS."""


class ServerUnderTest:
    """A server that a test may treat badly; its ``url`` stays the same over every restart."""

    def __init__(self, server: PostgresServer | ValkeyServer) -> None:
        self.server = server
        self.url = server.url()

    @property
    def pid(self) -> int:
        return self.server.pid

    def start(self, **settings: str) -> None:
        """Start again on the same data, a Valkey with settings changed from now on."""
        if settings:
            self.server._settings |= {key.replace("_", "-"): one for key, one in settings.items()}
        self.server.start()

    def stop(self) -> None:
        """Stop in good order."""
        self.server.stop()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        # Whoever sees it gone may start another, which is not to be waited for.
        process = self.server.process
        process.kill()
        process.wait()

    def end(self) -> None:
        """Leave nothing behind, whatever state the test left it in."""
        process = self.server.process
        if process is not None and process.poll() is None:
            self.resume()
            # Postgres then ends at once, without a checkpoint, but lets go of its shared memory. A
            # Valkey has none, and started by a shell's "make test &" it ignores the signal.
            is_postgres = isinstance(self.server, PostgresServer)
            os.kill(self.pid, signal.SIGQUIT if is_postgres else signal.SIGKILL)
            process.wait()
        if isinstance(self.server, PostgresServer):
            _let_go_of_shared_memory(self.server.data)
        self.server.stop()
        shutil.rmtree(self.server.data.parent, ignore_errors=True)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers. (Postgres: only the postmaster.)"""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Servers:
    """The servers of one test process in one short temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = RunFolder(folder / "run")
        self._numbers = itertools.count(1)
        self._template: Path | None = None

    def _place(self, kind: str) -> tuple[str, Path]:
        name = f"{kind}{next(self._numbers)}"
        (self.folder / name).mkdir(mode=0o711)
        sockets = self.folder / name / "s"
        sockets.mkdir(mode=0o700)
        return name, self.folder / name

    def postgres(self, settings: dict[str, str]) -> ServerUnderTest:
        program = find_postgres()
        name, place = self._place("pg")
        data = place / "data"
        if self._template is not None:
            # A copy of an initialised folder costs a tenth of another initdb.
            shutil.copytree(self._template, data, symlinks=True)
            _copy_owner(self._template, data)
        server = PostgresServer(
            program,
            data=data,
            sockets=place / "s",
            log=place / "log",
            run=self.run,
            name=name,
            settings=_OWN_FILES | settings,
        )
        if server.initialise(sync=False):
            self._template = self.folder / "template"
            shutil.copytree(data, self._template, symlinks=True)
            _copy_owner(data, self._template)
        server.start()
        return ServerUnderTest(server)

    def valkey(self, config: dict[str, str]) -> ServerUnderTest:
        name, place = self._place("vk")
        server = ValkeyServer(
            find_valkey(),
            data=place / "data",
            sockets=place / "s",
            log=place / "log",
            run=self.run,
            name=name,
            settings={key.replace("_", "-"): value for key, value in config.items()},
        )
        server.start()
        return ServerUnderTest(server)


def _let_go_of_shared_memory(data: Path) -> None:
    """Remove the segment of a server that was killed; a system has room for some thousand."""
    with suppress(OSError):
        # Its last lines are the key and the number of the segment, and the state.
        *_, segment, _state = (data / "postmaster.pid").read_text().splitlines()
        ctypes.CDLL(None).shmctl(int(segment.split()[1]), _IPC_RMID, None)


def _copy_owner(source: Path, copy: Path) -> None:
    owner = source.stat()
    if os.geteuid() == 0:
        for path in [copy, *copy.rglob("*")]:
            os.chown(path, owner.st_uid, owner.st_gid)


def _place_for_servers() -> str:
    """Return a folder, in memory where there is room: tests make 1,000 databases of 400 files."""
    memory = "/dev/shm"  # noqa: S108  (mkdtemp makes a folder of our own in it)
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM_BYTES
    return memory if roomy else "/tmp"  # noqa: S108  (likewise)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    # Short, because a socket's path may have about 100 bytes; not pytest's own folder, which
    # `nobody` (who runs Postgres for root) may not enter.
    folder = Path(tempfile.mkdtemp(prefix="docyard-test-", dir=_place_for_servers()))
    folder.chmod(0o711)
    servers = Servers(folder)
    guard = start_guard(servers.run, remove=folder)
    yield servers
    guard.stdin.close()
    guard.wait(timeout=30)


@pytest.fixture(scope="session")
def postgres(servers: Servers) -> Iterator[ServerUnderTest]:
    server = servers.postgres(_FAST)
    yield server
    server.end()


@pytest.fixture(scope="session")
def postgres_url(postgres: ServerUnderTest) -> str:
    return postgres.url


@pytest.fixture(scope="session")
def template_database(postgres: ServerUnderTest) -> str:
    """The name of a migrated database to clone."""
    name = "docyard_template"
    _execute(postgres, f"CREATE DATABASE {name}")
    if importlib.util.find_spec("app.storage.migrate"):
        from app.storage.migrate import migrate

        migrate(postgres.server.url(name))
    # A database that somebody is connected to cannot be cloned.
    _execute(postgres, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    _execute(
        postgres, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name
    )
    return name


_database_numbers = itertools.count(1)


@pytest.fixture
def database_url(postgres: ServerUnderTest, template_database: str) -> Iterator[str]:
    name = f"test_{next(_database_numbers)}"
    # Without a write-ahead log of its own it costs a third; nothing has to be recovered.
    _execute(postgres, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy")
    yield postgres.server.url(name)
    _execute(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database_url(database_url: str) -> str:
    conninfo = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return database_url


def _execute(server: ServerUnderTest, statement: str, *parameters: str) -> None:
    conninfo = server.url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(statement, parameters)


@pytest.fixture(scope="session")
def valkey(servers: Servers) -> Iterator[ServerUnderTest]:
    server = servers.valkey({})
    yield server
    server.end()


@pytest.fixture
def redis_url(valkey: ServerUnderTest) -> str:
    # It waits for seconds only, and a machine may stand still for longer.
    for _ in range(10):
        if ask(valkey.server.socket, b"FLUSHALL SYNC") == b"+OK\r\n":
            return valkey.url
    pytest.fail("the Valkey of this test process does not answer")


@pytest.fixture
def make_postgres(servers: Servers) -> Iterator[Callable[..., ServerUnderTest]]:
    """Factory of servers with the real durability settings unless told otherwise."""
    yield from _factory(servers.postgres)


@pytest.fixture
def make_valkey(servers: Servers) -> Iterator[Callable[..., ServerUnderTest]]:
    yield from _factory(servers.valkey)


def _factory(
    make: Callable[[dict[str, str]], ServerUnderTest],
) -> Iterator[Callable[..., ServerUnderTest]]:
    made: list[ServerUnderTest] = []

    def factory(**settings: str) -> ServerUnderTest:
        made.append(make(settings))
        return made[-1]

    yield factory
    for server in made:
        server.end()
