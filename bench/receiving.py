"""Destinations for a measurement, and one receiver process for all of them."""

from __future__ import annotations

import json
import multiprocessing
import socket
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg

from app.domain.destinations import DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT
from app.storage import destinations
from app.storage.engine import make_engine, transaction
from bench import counting_receiver as receiver_process
from bench.results import Void
from bench.sides import STALL_SECONDS, Side

SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def counting_receiver() -> Iterator[str]:
    """Run a receiver in a process of its own; yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = SPAWN.Process(target=receiver_process.run, args=(port,), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(100):
            try:
                get(f"{url}count")
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.join()


@contextmanager
def some_destinations(side: Side, keys: Sequence[str], url: str) -> Iterator[None]:
    """Make destinations that are gone afterwards, each with a path of its own below a URL."""
    engine = make_engine(side.database_url, application_name="bench")
    with transaction(engine) as connection:
        for key in keys:
            given = DestinationInput(key=key, url=f"{url}{key}")
            made = make_destination(DEFAULT_TENANT, given, now=datetime.now(UTC))
            destinations.create(connection, made)
    engine.dispose()
    try:
        yield
    finally:
        with psycopg.connect(side.database_url) as connection:
            connection.execute("TRUNCATE destinations, destination_runtime")
            connection.execute("UPDATE config_versions SET version = version + 1")


@contextmanager
def one_destination(side: Side, url: str) -> Iterator[None]:
    """Make a single destination that takes every document."""
    with some_destinations(side, ["bench"], url):
        yield


def require_delivered(side: Side, receiver: str, expected: int) -> None:
    """Wait until everything is delivered and recorded.

    Raises:
        Void: a delivery did not arrive, arrived twice, or was not recorded.
    """
    states: dict[str, int] = {}
    end, last = time.monotonic() + STALL_SECONDS, -1
    with psycopg.connect(side.database_url, autocommit=True) as connection:
        while states.get("delivered") != expected:
            rows = connection.execute("SELECT state, count(*) FROM deliveries GROUP BY state")
            states = {str(state): int(count) for state, count in rows.fetchall()}
            if (delivered := states.get("delivered", 0)) != last:
                end, last = time.monotonic() + STALL_SECONDS, delivered
            if time.monotonic() > end:
                message = f"{side.name} recorded {states}, expected {expected} delivered"
                raise Void(message)
            time.sleep(0.2)
    counts = json.loads(get(f"{receiver}count"))
    if counts["requests"] != expected or counts["distinct"] != expected:
        message = f"{side.name}'s receiver saw {counts}, expected {expected}"
        raise Void(message)


def get(url: str) -> bytes:
    """Ask the receiver."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  (our own receiver)
        return bytes(answer.read())
