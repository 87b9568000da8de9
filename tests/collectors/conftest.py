"""Collectors in real processes: a module of the test's own, web, worker, and ways to dispatch."""

from __future__ import annotations

import textwrap
import threading
import uuid
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from app.domain.deliveries import RetryPolicy
from app.storage.engine import make_engine
from tests.acceptance.conftest import (
    PROJECT,
    System,
    children,
    make_system,  # noqa: F401  (a fixture)
    until,
)
from tests.delivery.conftest import (
    Bells,
    engine,  # noqa: F401  (likewise)
    wait_until,
    yard,  # noqa: F401  (likewise)
)
from worker.collectors.calls import THREADS
from worker.collectors.parts import make_parts
from worker.collectors.watch import WatchOptions
from worker.outbox import CONNECTIONS
from worker.pump import PumpOptions


class CollectorsYard:
    """A system whose worker carries the collectors of a module that the test writes."""

    def __init__(self, factory, database_url: str, redis_url: str, folder: Path) -> None:
        self._make_system = factory
        self._urls = database_url, redis_url
        self.folder = folder
        self.system: System

    def write(self, name: str, source: str) -> None:
        """Write a module that processes can import."""
        (self.folder / f"{name}.py").write_text(textwrap.dedent(source))

    def start(self, source: str, *, worker: bool = True, **environment: str) -> System:
        """Start web and worker, with these collectors."""
        self.write("yard_collectors", source)
        self.system = self._make_system(
            *self._urls,
            COLLECTORS="yard_collectors",
            PYTHONPATH=f"{self.folder}:{PROJECT}",
            YARD=str(self.folder),
            **environment,
        )
        self.system.start_web()
        if worker:
            self.worker = self.system.start("worker")
        return self.system

    def collectors_pid(self) -> int:
        """Return the process that carries the collectors."""

        def find() -> int:
            for pid in children(self.worker.pid):
                if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"\0collectors\0"):
                    return pid
            return 0

        found = until(find)
        assert found, self.system.logs()
        return found

    def send(self, key: str, content: str = "{}", **fields: object) -> str:
        """Post a document for one collector; return its id."""
        body = {"content": content, "keys": [key], **fields}
        status, answer = self.system.post("/documents", body)
        assert status == 202, answer
        return answer["id"]

    def delivery(self, document_id: str) -> dict | None:
        """Return the newest delivery of a document."""
        items = self.system.get(f"/documents/{document_id}/deliveries")[1].get("items")
        return items[0] if items else None

    def ended(self, document_id: str, seconds: float = 30) -> dict:
        """Wait until the delivery of a document has ended, and return it."""

        def look() -> dict | None:
            found = self.delivery(document_id)
            return found if found and found["ended_at"] else None

        found = until(look, seconds)
        assert found, (self.delivery(document_id), self.system.logs())
        return found

    def ready(self, key: str) -> dict:
        """Wait until a worker carries a collector; return its destination."""

        def look() -> dict | None:
            items = self.system.get("/destinations")[1]["items"]
            return next(
                (o for o in items if o["key"] == key and o["status"] != "unavailable"), None
            )

        found = until(look, 30)
        assert found, self.system.logs()
        return found

    def lines(self, name: str) -> list[str]:
        """Return the lines that collectors have written to a file."""
        file = self.folder / name
        return file.read_text().split() if file.exists() else []

    def rows(self, statement: str) -> list[tuple]:
        with psycopg.connect(self._urls[0].replace("+psycopg", "")) as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []


@pytest.fixture
def collectors_yard(make_system, database_url, redis_url, tmp_path):  # noqa: F811
    return CollectorsYard(make_system, database_url, redis_url, tmp_path)


class Ended(threading.Event):
    """Set where a process of collectors would have ended itself."""

    how = ""


class Carrier:
    """The collectors of one process, within the test's."""

    def __init__(self, engine, specs, watching, options) -> None:  # noqa: F811
        self.engine = engine
        self.rung = threading.Event()
        self.parts = make_parts(specs, engine, Rings(self.rung), self.rung, options, watching)
        self.parts.start()
        self.stopped = False

    @property
    def destinations(self) -> dict[str, uuid.UUID]:
        return dict(self.parts.attendant._destinations)

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self.parts.stop()
            self.parts.close()
            self.engine.dispose()


class Rings(Bells):
    """A doorbell that rings within the process."""

    def __init__(self, rung: threading.Event) -> None:
        super().__init__()
        self._rung = rung

    def ring(self, tenant_id, destination_ids):
        self._rung.set()
        return super().ring(tenant_id, destination_ids)


@pytest.fixture
def ended():
    return Ended()


@pytest.fixture
def make_carrier(database_url, ended):
    made: list[Carrier] = []

    def end(how: str):
        def note() -> None:
            ended.how = how
            ended.set()

        return note

    def make(*specs, warn_seconds=5.0, most_seconds=30.0, **options) -> Carrier:
        options.setdefault("policy", RetryPolicy(jitter=0))
        watching = WatchOptions(
            warn_seconds=warn_seconds,
            most_seconds=most_seconds,
            end_in_order=end("in order"),
            end_at_once=end("at once"),
        )
        own = make_engine(
            database_url, application_name="carrier", pool_size=CONNECTIONS + THREADS + 1
        )
        made.append(Carrier(own, specs, watching, PumpOptions(**options)))
        return made[-1]

    yield make
    for carrier in made:
        carrier.stop()


class Desk:
    """Stores documents for collectors, and reads what became of them."""

    def __init__(self, rows) -> None:
        self.rows = rows

    def store(self, carrier: Carrier, key: str, content: str = "{}", **fields):
        """Store a document for a collector, and ring."""
        destination = SimpleNamespace(id=carrier.destinations[key])
        document = self.rows.one(destination, content, **fields)
        carrier.rung.set()
        return document

    def row(self, document):
        """Return the delivery of a document."""
        (row,) = self.rows.execute(
            "SELECT * FROM deliveries WHERE document_id = :id", id=document.id
        )
        return row

    def ended(self, document, seconds: float = 60.0):
        """Wait for the end of a document's delivery; return its row with ``value``."""

        def look():
            (row,) = self.rows.execute(
                "SELECT d.*, r.value FROM deliveries d LEFT JOIN delivery_results r"
                " USING (tenant_id, document_id, seq, destination_id, generation)"
                " WHERE d.document_id = :id",
                id=document.id,
            )
            return row if row.ended_at else None

        return wait_until(look, seconds)

    def attempted(self, document, attempts: int = 1):
        """Wait until so many attempts are recorded; return the delivery."""

        def look():
            row = self.row(document)
            return row if row.attempted_at and row.attempts >= attempts else None

        return wait_until(look)


@pytest.fixture
def desk(yard):  # noqa: F811
    return Desk(yard)
