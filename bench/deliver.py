"""Deliveries a second through the pump ÷ requests a second of a bare aiohttp loop.

    python -m bench.deliver --rounds 5 --deliveries 20000 --receivers 10

Both sides POST the same bytes to the same receiver process, which plays as many receivers as are
asked for, on uvloop, each from a process of its own. The bare loop has 50 connections to each
receiver, 500 in all at most, and does nothing but send; the pump finds its concurrency by itself,
up to 50 for each, reads its rows from a real Postgres, signs, and records every result and every
attempt. A rate is that of the receiver: requests divided by the time from the first to the last. A
round that loses, repeats or does not record one is void.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import itertools
import json
import logging
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import structlog
import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector
from sqlalchemy import Engine, text

from app.domain.destinations import Destination, DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT, accepted_at
from app.domain.predictions import Prediction
from app.domain.routing import Route
from app.local.folder import DataFolder
from app.local.servers import PrivateServers
from app.storage import destinations
from app.storage.documents import IncomingDocument
from app.storage.due import read_due
from app.storage.engine import make_engine, transaction
from app.storage.ingest import ClassifiedChunk, apply
from app.storage.migrate import migrate
from bench.receiving import counting_receiver, get
from bench.results import Void
from bench.run import say
from worker.attempts import payload_of
from worker.child import SWITCH_SECONDS
from worker.deliver import DeliveryResources, deliver
from worker.outbox import CONNECTIONS
from worker.pump import Pump, PumpOptions

CONNECTIONS_TO_RECEIVER = 50
MOST_CONNECTIONS = 500
WORDS = 250
CHUNK = 500
SPAWN = multiprocessing.get_context("spawn")
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


class OwnDoorbell:
    """Rings the one pump there is: a crowded one passes its destinations on from time to time."""

    def __init__(self) -> None:
        self.rung: list[uuid.UUID] = []

    def clear(self, tenant_id: int, destination_id: uuid.UUID) -> None:
        """Nothing to clear."""

    def ring(self, tenant_id: int, destination_ids: Sequence[uuid.UUID]) -> int:  # noqa: ARG002
        """Note who is to be taken up again."""
        self.rung += destination_ids
        return len(destination_ids)


def main() -> None:
    """Run the rounds and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument("--receivers", type=int, default=1)
    arguments = parser.parse_args()
    bare, pumped = measure(arguments.rounds, arguments.deliveries, arguments.receivers)
    ratios = [ours / theirs for ours, theirs in zip(pumped, bare, strict=True)]
    print(
        f"medians of {len(ratios)}: bare aiohttp {statistics.median(bare):,.0f}/s, "
        f"pump {statistics.median(pumped):,.0f}/s, ratio {statistics.median(ratios):.2f}"
    )


def measure(rounds: int, amount: int, receivers: int = 1) -> tuple[list[float], list[float]]:
    """Return the rates of the bare loop and of the pump, round by round.

    Args:
        rounds: of each side, in turn.
        amount: of deliveries in a round, to all receivers together.
        receivers: among which they are divided.

    Raises:
        Void: a delivery was lost, repeated or not recorded.
    """
    with _database() as url, counting_receiver() as receiver_url:
        engine = make_engine(url, application_name="bench", pool_size=2)
        many = _plan(engine, receiver_url, amount, receivers)
        bare: list[float] = []
        pumped: list[float] = []
        for number in range(1, rounds + 1):
            bare.append(_round(receiver_url, run_bare, (url, many), amount))
            pumped.append(_round(receiver_url, run_pump, (url, many), amount))
            _require_recorded(engine, amount)
            _make_pending_again(engine)
            say(f"  round {number}: bare {bare[-1]:,.0f}/s, pump {pumped[-1]:,.0f}/s")
        engine.dispose()
    return bare, pumped


# Rounds


def run_bare(database_url: str, many: Sequence[Destination]) -> None:
    """Child process: send every body once, as fast as aiohttp does."""
    engine = make_engine(database_url, application_name="bench")
    bodies: dict[str, list[bytes]] = {}
    with transaction(engine) as connection:
        for one in many:
            page = read_due(connection, DEFAULT_TENANT, one.id, max_rows=10**6, max_bytes=10**10)
            bodies[one.url] = [payload_of(due, "envelope").body for due in page.fresh]
    engine.dispose()
    uvloop.run(_send_all(bodies))


async def _send_all(bodies: Mapping[str, list[bytes]]) -> None:
    async def send(url: str, waiting: Iterator[bytes]) -> None:
        for body in waiting:
            async with session.post(url, data=body) as response:
                await response.read()

    each = min(CONNECTIONS_TO_RECEIVER, MOST_CONNECTIONS // len(bodies))
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, cookie_jar=DummyCookieJar()) as session:
        await asyncio.gather(
            *(
                send(url, waiting)
                for url, these in bodies.items()
                for waiting in itertools.repeat(iter(these), each)
            )
        )


def run_pump(database_url: str, many: Sequence[Destination]) -> None:
    """Child process: a pump that is rung once for each, and stops when it has let go."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    sys.setswitchinterval(SWITCH_SECONDS)
    engine = make_engine(database_url, application_name="bench", pool_size=CONNECTIONS + 1)
    options = PumpOptions(concurrency=CONNECTIONS_TO_RECEIVER, allowed=(LOOPBACK,))
    doorbell = OwnDoorbell()
    pump = Pump(engine, doorbell, options)
    pump.start()
    resources = DeliveryResources(engine=engine, pump=pump)
    doorbell.rung = [one.id for one in many]
    while doorbell.rung or pump.held:
        while doorbell.rung:
            deliver(resources, DEFAULT_TENANT, doorbell.rung.pop())
        time.sleep(0.05)
    pump.stop()
    engine.dispose()


def _round(
    receiver_url: str, target: object, arguments: tuple[str, Sequence[Destination]], expected: int
) -> float:
    get(receiver_url + "reset")
    child = SPAWN.Process(target=target, args=arguments)  # type: ignore[arg-type]  # a function
    child.start()
    child.join()
    counts = json.loads(get(receiver_url + "count"))
    distinct = counts["distinct"] or expected
    if child.exitcode or counts["requests"] != expected or distinct != expected:
        message = f"exit code {child.exitcode}, {counts}, expected {expected}"
        raise Void(message)
    return float((expected - 1) / counts["seconds"])


# Data


def _plan(engine: Engine, receiver_url: str, count: int, receivers: int) -> list[Destination]:
    """Plan deliveries, to one receiver after the other; return the destinations."""
    now = datetime.now(UTC)
    many = [
        make_destination(
            DEFAULT_TENANT,
            DestinationInput(key=f"bench-{number}", url=f"{receiver_url}{number}"),
            now=now,
        )
        for number in range(receivers)
    ]
    with transaction(engine) as connection:
        for one in many:
            destinations.create(connection, one)
    for start in range(0, count, CHUNK):
        documents = [_document(number) for number in range(start, min(start + CHUNK, count))]
        chunk = ClassifiedChunk(
            tenant_id=DEFAULT_TENANT, chunk_id=uuid.uuid4(), documents=documents, rejections=[]
        )
        with transaction(engine) as connection:
            apply(
                connection,
                DEFAULT_TENANT,
                [chunk],
                lambda document: [Route(many[document.id.int % receivers].id, "key")],
            )
    return many


def _document(number: int) -> IncomingDocument:
    words = random.Random(number)  # noqa: S311  (filler text)
    seq = 1_700_000_000_000_000 + number
    return IncomingDocument(
        tenant_id=DEFAULT_TENANT,
        id=uuid.UUID(int=number + 1),
        version=0,
        seq=seq,
        content=" ".join("".join(words.choices("etaoinshrdlu", k=5)) for _ in range(WORDS)),
        topics=["bench.deliver"],
        keys=None,
        delivery=None,
        priority=None,
        attributes={"number": number},
        created_at=accepted_at(seq),
        updated_at=accepted_at(seq),
        prediction=Prediction("sci.space", 0.93, "bench"),
    )


def _require_recorded(engine: Engine, expected: int) -> None:
    with transaction(engine) as connection:
        states = connection.execute(
            text("SELECT state, count(*) AS amount FROM deliveries GROUP BY state")
        )
        found = {row.state: row.amount for row in states}
        attempts = connection.execute(text("SELECT count(*) FROM attempts")).scalar_one()
    if found != {"delivered": expected} or attempts != expected:
        message = f"recorded {found} and {attempts} attempts, expected {expected} delivered"
        raise Void(message)


def _make_pending_again(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text("UPDATE deliveries SET state = 'pending', attempts = 0, ended_at = NULL")
        )
        connection.execute(text("TRUNCATE attempts"))
        connection.execute(text("VACUUM FULL ANALYZE deliveries"))
        connection.execute(text("VACUUM ANALYZE documents"))


# Servers


@contextmanager
def _database() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="docyard-bench-") as name:
        folder = DataFolder(Path(name) / "data")
        folder.claim()
        servers = PrivateServers(folder, with_postgres=True, with_valkey=False)
        for start in servers.starters():
            start()
        assert servers.postgres is not None  # noqa: S101  (asked for above)
        try:
            url = servers.postgres.url()
            migrate(url)
            yield url
        finally:
            servers.postgres.stop()


if __name__ == "__main__":
    main()
