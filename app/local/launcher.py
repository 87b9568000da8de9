"""``make up``: starts the parts in their order, watches them, and stops them in the opposite one.

::

    claim folder, lock it, end what a killed run left
        ├── Postgres (initdb the first time) ─┐
        ├── Valkey                            ├─ migrate ─ web ─┐
        └── import the migrations             ┘           worker ┴─ /readyz ─ watch
    stop: web, worker, Postgres, Valkey
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self

from app.local.addresses import free_address, local_url
from app.local.errors import InstanceSilent, ServerFailed
from app.local.folder import PROJECT
from app.local.guard import start_guard
from app.local.instance import Client, Instance, forget_instance, note_instance
from app.local.logfiles import bound, last_lines, rotate
from app.local.processes import start_stamp
from app.local.servers import PrivateServers
from app.local.sockets import forget_sockets
from app.local.tasks import Events, Task

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from app.local.plan import Plan

READY_SECONDS = 60.0
LOOPBACK = "127.0.0.0/8,::1/128"


class StopAsked(Exception):
    """Somebody asked to stop while the parts were still starting."""


class Launcher:
    """One run of ``up``; ``with Launcher(plan, say) as launcher`` starts, and stops at the end."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._folder = plan.folder
        self._say = say
        self._events = Events(on_stop=self._hurry)
        self._servers: PrivateServers | None = None
        self._starting: list[Task[None]] = []
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._undo = ExitStack()
        self.address = ""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._undo = undo
            undo.enter_context(self._events)
            self._prepare()
            self._start_servers()
            self._start_parts()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._undo.close()

    def watch(self) -> None:
        """Wait until somebody asks to stop.

        Raises:
            ServerFailed: a part or a server died; carries the end of its log.
        """
        while not self._events.stops_asked:
            self._check_children()
            bound(self._folder.path / "logs")
            self._events.wait(30.0)

    def encryption_keys(self) -> str:
        """Return the keys in force; ours stays behind those of the user, to read what it sealed."""
        return self._folder.encryption_keys(self._plan.environment.get("ENCRYPTION_KEYS"))

    def _prepare(self) -> None:
        folder = self._folder
        folder.claim()
        lock = folder.lock(waiting=self._wait_for_last_run)
        self._undo.callback(folder.unlock)
        if leftovers := folder.run.stop_all():
            self._say(f"Stopped what a killed run had left: {', '.join(leftovers)}.")
        port = free_address(self._plan.host, self._plan.port)
        self.address = local_url(self._plan.host, port)
        rotate(folder.path / "logs")
        guard = start_guard(folder.run, keep_open=(lock,))
        self._undo.callback(_dismiss, guard)
        self._undo.callback(forget_sockets, folder.path / "sockets")
        self._undo.callback(self._stop_everything)
        self._environment = {
            "DESTINATION_ALLOW_CIDRS": LOOPBACK,
            **self._plan.environment,
            "ENCRYPTION_KEYS": self.encryption_keys(),
            "HOST": self._plan.host,
            "PORT": str(port),
            "PYTHONUNBUFFERED": "1",
        }

    def _wait_for_last_run(self, times: int) -> None:
        if self._events.stops_asked:
            raise StopAsked
        if times == 0:
            self._say("Waiting for the last run to be stopped …")
        self._events.wait(0.05)

    def _start_servers(self) -> None:
        plan = self._plan
        self._servers = servers = PrivateServers(
            self._folder,
            with_postgres=plan.database_url is None,
            with_valkey=plan.redis_url is None,
        )
        if str(servers):
            self._say(f"Starting {servers} in {self._folder.path} …")
        self._starting = [Task(start, self._events) for start in servers.starters()]
        importing = Task(plan.migrate, self._events)
        self._finish(*self._starting, importing)
        database = plan.database_url or (servers.postgres.url() if servers.postgres else "")
        queue = plan.redis_url or (servers.valkey.url() if servers.valkey else "")
        self._environment |= {"DATABASE_URL": database, "REDIS_URL": queue}
        migrate = importing.result()
        self._finish(Task(lambda: migrate(database), self._events))

    def _finish(self, *tasks: Task[Any]) -> None:
        """Wait for tasks; when somebody asks to stop meanwhile, give them up."""
        while not all(task.done for task in tasks):
            self._events.wait(60.0)
            if self._events.stops_asked:
                raise StopAsked
        for task in tasks:
            task.result()

    def _start_parts(self) -> None:
        for part in self._plan.parts:
            self._children[part.name] = self._folder.run.start(
                part.name,
                part.command,
                log=self._folder.log(part.name),
                rule=part.rule,
                environment=self._environment,
                cwd=PROJECT,
            )
        self._wait_until_ready()
        self._note_instance()

    def _note_instance(self) -> None:
        self._undo.callback(forget_instance, self._folder)
        note_instance(
            self._folder,
            Instance(
                address=self.address,
                database=None if self._plan.database_url else self._environment["DATABASE_URL"],
                queue=None if self._plan.redis_url else self._environment["REDIS_URL"],
                pid=os.getpid(),
                stamp=start_stamp(os.getpid()) or "",
            ),
        )

    def _wait_until_ready(self) -> None:
        client = Client(self.address, timeout=2.0)
        deadline = time.monotonic() + READY_SECONDS
        answer = "no answer"
        while time.monotonic() < deadline:
            if self._events.stops_asked:
                raise StopAsked
            self._check_children()
            try:
                status, body = client.ask("GET", "/readyz")
            except InstanceSilent:
                status = 0
            if status == HTTPStatus.OK:
                return
            answer = f"{status} {body}" if status else answer
            self._events.wait(0.03)
        log = self._folder.log("web")
        raise ServerFailed("The web process", f"is not ready ({answer})", log, last_lines(log))

    def _check_children(self) -> None:
        for name, child in self._everybody():
            if (code := child.poll()) is not None:
                how = f"ended by itself (exit code {code})"
                if code < 0:
                    how = f"was killed ({signal.Signals(-code).name})"
                log = self._folder.log(name)
                raise ServerFailed(f"The part {name!r}", how, log, last_lines(log))

    def _everybody(self) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
        yield from self._children.items()
        if self._servers:
            yield from self._servers.processes().items()

    def _hurry(self, times_asked: int) -> None:
        """On a second Ctrl-C do not wait for web and worker; the servers still end in order."""
        if times_asked > 1:
            for child in self._children.values():
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)

    def _stop_everything(self) -> None:
        # A server whose start was under way when somebody asked to stop gets its mark late.
        while self._folder.run.marks() or not all(task.done for task in self._starting):
            for mark in self._folder.run.marks():
                if mark.alive:
                    self._say(f"Stopping {mark.name} …")
                if self._folder.run.stop(mark):
                    self._say(f"{mark.name} did not end within {mark.grace_seconds:.0f} s: killed.")
            if not all(task.done for task in self._starting):
                self._events.wait(0.05)
        for _, child in self._everybody():
            child.wait()


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    if guard.stdin:
        guard.stdin.close()
    guard.wait()
