"""How long it takes until all is as before, behind each fault.

Recovered is: every id that was accepted before the part was back is stored, and a new document goes
all the way, from each web process to every receiver.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass
from typing import Self

import psycopg

from tests.chaos.ledger import Ledger, Outcome
from tests.chaos.load import Sender
from tests.chaos.plan import WEBS, Fault
from tests.chaos.world import World

POLL_SECONDS = 0.1
LONGEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What followed a fault; seconds since its part was back.

    Attributes:
        stored_seconds: until all that was accepted before was stored; None: it never was.
        through_seconds: until a new document had arrived everywhere; likewise.
    """

    fault: Fault
    stored_seconds: float | None
    through_seconds: float | None

    @property
    def seconds(self) -> float | None:
        """The longer of the two."""
        if self.stored_seconds is None or self.through_seconds is None:
            return None
        return max(self.stored_seconds, self.through_seconds)


class Stored:
    """Watches which ids are stored; a thread of its own asks Postgres, past the proxies."""

    def __init__(self, world: World, ledger: Ledger) -> None:
        self._world = world
        self._ledger = ledger
        self._ids: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stored", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def missing(self, before: float) -> set[str]:
        """Return the ids that were accepted before a time and are not known to be stored."""
        return self._ledger.accepted_ids(before) - self._ids

    def _run(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            missing = [uuid.UUID(one) for one in self.missing(time.monotonic())]
            try:
                with self._world.sql() as connection:
                    rows = connection.execute(
                        "SELECT id FROM documents WHERE id = ANY(%s)", (missing,)
                    )
                    self._ids |= {str(row[0]) for row in rows}
            except psycopg.Error:
                continue


class Prober:
    """Measures recoveries."""

    def __init__(self, world: World, ledger: Ledger, sender: Sender, stored: Stored) -> None:
        self._world = world
        self._ledger = ledger
        self._sender = sender
        self._stored = stored

    def measure(self, fault: Fault, back_at: float) -> Recovery:
        """Wait until all is as before, and say how long that took."""
        deadline = back_at + LONGEST_SECONDS
        probes: list[str] = []
        for web in WEBS:
            probes += self._send(web, deadline)
        stored_at = through_at = None
        while time.monotonic() < deadline and (stored_at is None or through_at is None):
            if stored_at is None and not self._stored.missing(back_at):
                stored_at = time.monotonic()
            if through_at is None and len(probes) == len(WEBS) and self._arrived(probes):
                through_at = time.monotonic()
            time.sleep(POLL_SECONDS)
        return Recovery(
            fault=fault,
            stored_seconds=None if stored_at is None else max(0.0, stored_at - back_at),
            through_seconds=None if through_at is None else max(0.0, through_at - back_at),
        )

    def _send(self, web: str, deadline: float) -> list[str]:
        while time.monotonic() < deadline:
            probe = str(uuid.uuid4())
            (sent,) = self._sender.send("single", web, [(probe, None)])
            if sent.outcome is Outcome.ACCEPTED:
                return [probe]
            time.sleep(POLL_SECONDS)
        return []

    def _arrived(self, probes: list[str]) -> bool:
        wanted = {uuid.UUID(one).hex for one in probes}
        return all(
            wanted <= received.documents for received in self._world.receivers.received.values()
        )
