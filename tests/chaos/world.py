"""The installation that a run is done to: servers, web, worker, receivers, a proxy on each link."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import urllib.request
import uuid
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import orjson
import psycopg
import redis

from app.local.binaries import find_postgres, find_valkey
from app.local.guard import start_guard
from app.local.postgres import PostgresServer
from app.local.processes import RunFolder
from app.local.valkey import ValkeyServer
from app.storage.migrate import migrate
from tests.chaos import sabotage
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.plan import LINKS, RECEIVERS, WEBS, WORKERS
from tests.chaos.receivers import Receivers
from tests.chaos.services import PROJECT, Service, Web, Worker, marked

LADDER_SECONDS = [1, 2, 3, *[5] * 17]
"""Long enough that no fault of a run wears a delivery out."""
MARK = "DOCYARD_CHAOS"
INSIDE = Path(__file__).parent / "inside"
DATABASE = "chaos"


class World:
    """``with`` starts everything and leaves nothing behind but the logs.

    Attributes:
        folder: of the logs and of what is written about a failure; short-lived data is elsewhere.
        locks: per part, so that two faults at once are not done to the same one.
    """

    def __init__(self, seed: int, folder: Path, *, planted: str | None = None) -> None:
        self.seed = seed
        self.folder = folder
        self.proxies: dict[str, FaultProxy] = {}
        self.webs: dict[str, Web] = {}
        self.workers: dict[str, Worker] = {}
        self.locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self.receivers = Receivers(seed)
        self.destinations: dict[str, uuid.UUID] = {}
        self.run_id = uuid.uuid4().hex
        self._planted = planted
        self._stack = ExitStack()
        # Short, because a socket's path may have about 100 bytes; passable for `nobody`, who runs
        # Postgres where we are root.
        self._data = Path(tempfile.mkdtemp(prefix="docyard-chaos-", dir="/tmp"))
        self._data.chmod(0o711)
        self._run = RunFolder(self._data / "run")
        self.clock = self._data / "clock"

    @property
    def services(self) -> dict[str, Service]:
        """Web and worker processes by name."""
        return {**self.webs, **self.workers}

    def __enter__(self) -> Self:
        with self._stack:
            guard = start_guard(self._run, remove=self._data)
            self._stack.callback(guard.wait, 60)
            self._stack.callback(guard.stdin.close)
            self._start_servers()
            self._stack.enter_context(self.receivers)
            self._start_proxies()
            self._stack.callback(self.stop_services)
            self._start_services()
            self._make_destinations()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        shutil.rmtree(self._data, ignore_errors=True)

    # Servers

    def _start_servers(self) -> None:
        sockets = self._data / "s"
        for part in ("postgres", "redis"):
            (sockets / part).mkdir(parents=True, mode=0o700)
        sockets.chmod(0o711)
        self.postgres = PostgresServer(
            find_postgres(),
            data=self._data / "postgres",
            sockets=sockets / "postgres",
            log=self.folder / "postgres.log",
            run=self._run,
            settings={"max_connections": "200", "shared_buffers": "64MB"},
        )
        self.redis = ValkeyServer(
            find_valkey(),
            data=self._data / "redis",
            sockets=sockets / "redis",
            log=self.folder / "redis.log",
            run=self._run,
        )
        for server in (self.redis, self.postgres):
            self._stack.callback(server.stop)
        self.postgres.initialise(sync=False)
        self.postgres.start()
        self.redis.start()
        with self.sql("postgres") as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        migrate(self.postgres.url(DATABASE))
        with self.sql() as connection:
            sabotage.prepare(connection)

    def sql(self, database: str = DATABASE) -> psycopg.Connection:
        """Connect past the proxies, with rights to write whatever the others may."""
        url = self.postgres.url(database).replace("postgresql+psycopg://", "postgresql://")
        options = "-c default_transaction_read_only=off -c statement_timeout=20s"
        return psycopg.connect(url, autocommit=True, connect_timeout=5, options=options)

    def client(self) -> redis.Redis:
        """Return a Redis client past the proxies."""
        return redis.Redis.from_url(self.redis.url(), socket_timeout=5, decode_responses=True)

    # Proxies and processes

    def _start_proxies(self) -> None:
        targets = {
            "redis": self.redis.socket,
            "postgres": self.postgres.sockets / ".s.PGSQL.5432",
            # Told by each web process as it starts.
            **dict.fromkeys(WEBS, ("127.0.0.1", 9)),
            **dict.fromkeys(RECEIVERS, ("127.0.0.1", self.receivers.port)),
        }
        for link in LINKS:
            proxy = FaultProxy(targets[link.partition(">")[2]])
            self.proxies[link] = self._stack.enter_context(proxy)

    def _environment(self, name: str) -> dict[str, str]:
        ports = {server: self.proxies[f"{name}>{server}"].port for server in ("redis", "postgres")}
        environment = {
            MARK: self.run_id,
            "DATABASE_URL": f"postgresql://app@127.0.0.1:{ports['postgres']}/{DATABASE}",
            "REDIS_URL": f"redis://127.0.0.1:{ports['redis']}/0",
            "DESTINATION_ALLOW_CIDRS": "127.0.0.0/8",
            "REQUIRE_DURABILITY": "always",
            "LOG_FORMAT": "json",
        }
        if self._planted is not None:
            environment["CHAOS_PLANTED"] = self._planted
        if name == WEBS[-1]:
            environment["CHAOS_CLOCK"] = str(self.clock)
        if self._planted is not None or name == WEBS[-1]:
            # Python runs the sitecustomize module that it finds there before anything else.
            environment["PYTHONPATH"] = f"{INSIDE}{os.pathsep}{PROJECT}"
        return environment

    def _start_services(self) -> None:
        self.clock.write_text("0")
        for name in WEBS:
            self.webs[name] = Web(
                name,
                self.proxies[f"client>{name}"],
                run=self._run,
                logs=self.folder,
                environment=self._environment(name),
            )
        for name in WORKERS:
            self.workers[name] = Worker(
                name, run=self._run, logs=self.folder, environment=self._environment(name)
            )
        for service in self.services.values():
            service.start()
        for service in self.services.values():
            service.wait_ready()

    def _make_destinations(self) -> None:
        port = self.proxies[f"client>{WEBS[0]}"].port
        for name in RECEIVERS:
            given = {
                "key": name,
                "url": f"http://127.0.0.1:{self.proxies[f'delivery>{name}'].port}/{name}",
                "timeout_seconds": 3,
                "retry": {"schedule_seconds": LADDER_SECONDS},
            }
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/destinations",
                orjson.dumps(given),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  (ours)
                self.destinations[name] = uuid.UUID(orjson.loads(response.read())["id"])

    def stop_services(self) -> list[str]:
        """Stop web and worker in good order; return what was wrong with that."""
        running = [one for one in self.services.values() if one.running]
        for service in running:
            service.terminate()
        wrong = [
            f"{service.name} did not end within its time"
            for service in running
            if not service.wait_gone()
        ]
        left = marked(MARK, self.run_id)
        return wrong + [f"process {one.pid} was left: {one.command}" for one in left]
