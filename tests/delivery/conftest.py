"""What the delivery tests share: a database, receivers on real sockets, pumps."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import Engine, text

from app.domain.deliveries import RetryPolicy
from app.domain.destinations import Destination, DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT, accepted_at
from app.domain.predictions import Prediction
from app.domain.routing import Route
from app.storage import destinations
from app.storage.documents import IncomingDocument
from app.storage.engine import make_engine, transaction
from app.storage.ingest import ClassifiedChunk, apply
from tests.delivery.raw_receiver import RawReceiver
from worker.deliver import DeliveryResources, deliver
from worker.outbox import CONNECTIONS
from worker.pump import Pump, PumpOptions

LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
_seqs = itertools.count(1_700_000_000_000_000)


def wait_until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Return the condition's first true value; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.01)
    return value


class LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def close(self) -> None:
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    @staticmethod
    async def _cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Received:
    """One request as the receiver saw it."""

    headers: dict[str, str]
    body: bytes
    path: str

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class HttpReceiver:
    """Answers as it is told, with 200 unless told otherwise."""

    loop: LoopThread
    host: str = "127.0.0.1"
    port: int = 0
    answer: Answer | None = None
    received: list[Received] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._take)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.host, self.port).start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        await self.runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [one.webhook_id for one in self.received]

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(headers, body, request.path))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.answer is None:
                return web.Response(text="ok")
            return await self.answer(request)
        finally:
            self.in_flight -= 1

    def answers(self, status: int, body: str = "", **headers: str) -> None:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_: web.Request) -> web.Response:
            return web.Response(status=status, text=body, headers=sent)

        self.answer = answer

    def hangs(self) -> Callable[..., None]:
        """Hold every answer until the returned function is called, with the status for all."""
        released = asyncio.Event()
        status = 200

        async def answer(_: web.Request) -> web.Response:
            await released.wait()
            return web.Response(status=status)

        def release(with_status: int = 200) -> None:
            nonlocal status
            status = with_status
            self.loop.loop.call_soon_threadsafe(released.set)

        self.answer = answer
        return release


@pytest.fixture
def loop_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def make_receiver(loop_thread: LoopThread) -> Iterator[Callable[..., HttpReceiver]]:
    made: list[HttpReceiver] = []

    def make(**options: Any) -> HttpReceiver:
        receiver = HttpReceiver(loop_thread, **options)
        loop_thread.run(receiver.start())
        made.append(receiver)
        return receiver

    yield make
    for receiver in made:
        loop_thread.run(receiver.stop())


@pytest.fixture
def receiver(make_receiver: Callable[..., HttpReceiver]) -> HttpReceiver:
    return make_receiver()


@pytest.fixture
def speaking(loop_thread):
    made = []

    def make(speak):
        made.append(RawReceiver(loop_thread, speak).start())
        return made[-1]

    yield make
    for receiver in made:
        loop_thread.run(receiver.stop())


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = make_engine(database_url, application_name="test", pool_size=4)
    yield made
    made.dispose()


class Bells:
    """A doorbell that remembers; it rings nobody."""

    def __init__(self) -> None:
        self.cleared = 0
        self.rung: list[uuid.UUID] = []

    def clear(self, tenant_id: int, destination_id: uuid.UUID) -> None:  # noqa: ARG002
        self.cleared += 1

    def ring(self, tenant_id: int, destination_ids: Any) -> int:  # noqa: ARG002
        self.rung.extend(destination_ids)
        return len(destination_ids)


class Yard:
    """Rows and short ways to make and to look at them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def destination(self, url: str, key: str = "a", **fields: Any) -> Destination:
        enabled = fields.pop("enabled", True)
        timeout_seconds = fields.pop("timeout_seconds", 15)
        given = DestinationInput(key=key, url=url, enabled=enabled, **fields)
        made = make_destination(DEFAULT_TENANT, given, now=datetime.now(UTC))
        # Shorter than users may ask for.
        made = replace(made, timeout_seconds=timeout_seconds)
        with transaction(self.engine) as connection:
            destinations.create(connection, made)
        return made

    def document(self, content: str = "some text", **fields: Any) -> IncomingDocument:
        seq = fields.pop("seq", None) or next(_seqs)
        return IncomingDocument(
            tenant_id=DEFAULT_TENANT,
            id=fields.pop("id", None) or uuid.uuid4(),
            version=fields.pop("version", 0),
            seq=seq,
            content=content,
            topics=fields.pop("topics", ["a.b"]),
            keys=None,
            delivery=None,
            priority=fields.pop("priority", None),
            attributes=fields.pop("attributes", {"n": 1}),
            created_at=accepted_at(seq),
            updated_at=accepted_at(seq),
            prediction=Prediction("sci.space", 0.9, "m1"),
        )

    def store(self, *documents: IncomingDocument, to: Destination) -> None:
        chunk = ClassifiedChunk(
            tenant_id=DEFAULT_TENANT,
            chunk_id=uuid.uuid4(),
            documents=list(documents),
            rejections=[],
        )
        with transaction(self.engine) as connection:
            apply(connection, DEFAULT_TENANT, [chunk], lambda _: [Route(to.id, "broadcast")])

    def one(self, to: Destination, content: str = "some text", **fields: Any) -> IncomingDocument:
        """Store a document for a destination."""
        document = self.document(content, **fields)
        self.store(document, to=to)
        return document

    def disable(self, destination: Destination) -> None:
        with transaction(self.engine) as connection:
            destinations.disable(connection, DEFAULT_TENANT, destination.id, "by a test")

    def execute(self, statement: str, **values: Any) -> Any:
        with transaction(self.engine) as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else None

    def rows(self) -> list[Any]:
        return self.execute("SELECT * FROM deliveries ORDER BY seq, generation")

    def row(self, document: IncomingDocument) -> Any:
        (row,) = self.execute("SELECT * FROM deliveries WHERE seq = :seq", seq=document.seq)
        return row

    def states(self) -> dict[str, int]:
        return dict(
            tuple(row)
            for row in self.execute("SELECT state, count(*) FROM deliveries GROUP BY state")
        )

    def make_due(self) -> None:
        self.execute("UPDATE deliveries SET due_at = now() WHERE state = 'pending'")

    def runtime(self, destination: Destination) -> Any:
        (row,) = self.execute(
            "SELECT * FROM destination_runtime WHERE destination_id = :id", id=destination.id
        )
        return row


@pytest.fixture
def yard(engine: Engine) -> Yard:
    return Yard(engine)


class Delivery:
    """A pump with what the actor around it does."""

    def __init__(self, engine: Engine, pump: Pump, bells: Bells) -> None:
        self.engine = engine
        self.pump = pump
        self.bells = bells

    def deliver(self, destination: Destination) -> None:
        resources = DeliveryResources(engine=self.engine, pump=self.pump)
        deliver(resources, DEFAULT_TENANT, destination.id)

    def wait_until_idle(self) -> None:
        wait_until(lambda: not self.pump.held)


@pytest.fixture
def make_delivery(database_url: str) -> Iterator[Callable[..., Delivery]]:
    made: list[Delivery] = []

    def make(url: str | None = None, **options: Any) -> Delivery:
        options.setdefault("allowed", (LOOPBACK,))
        options.setdefault("policy", RetryPolicy(jitter=0))
        engine = make_engine(
            url or database_url, application_name="pump", pool_size=CONNECTIONS + 1
        )
        bells = Bells()
        pump = Pump(engine, bells, PumpOptions(**options))
        pump.start()
        made.append(Delivery(engine, pump, bells))
        return made[-1]

    yield make
    for delivery in made:
        delivery.pump.stop()
        delivery.engine.dispose()


@pytest.fixture
def delivery(make_delivery: Callable[..., Delivery]) -> Delivery:
    return make_delivery()
