"""A run against an installation of yours: it loads and examines, you pull the plugs.

Everything goes over HTTP, as any client does it. The documents name the three destinations of the
run by key, so that nobody else gets them, and all of it is removed at the end.
"""

from __future__ import annotations

import ipaddress
import time
import traceback
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from app.local.errors import InstanceRefused, InstanceSilent, LocalError
from app.local.instance import Client
from app.local.registration import registered
from tests.chaos.ledger import Ledger, Outcome, fault_of_stored
from tests.chaos.load import Load, Sender
from tests.chaos.quiet import SHOWN, some
from tests.chaos.receivers import TEMPERS, Receivers, token_in
from tests.chaos.run import Result, Say
from tests.chaos.world import LADDER_SECONDS

WEB = "web"
AT_ONCE = 8
"""Requests of the examination."""
POLL_SECONDS = 0.5
TOLD_EVERY_SECONDS = 10.0
PAGE = 500
CLOCKS_DIFFER = timedelta(minutes=10)
"""Of this machine and of the installation, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What is examined.

    Attributes:
        address: of its API.
        api_key: its ``ADMIN_API_KEY``; None where it has none.
        receive_at: the address under which it reaches this machine; None for one on this machine.
        port: to listen on for it, 0 for a free one.
        patience_seconds: for it to become quiet.
    """

    address: str
    api_key: str | None = None
    receive_at: str | None = None
    port: int = 0
    patience_seconds: float = 120.0


def run_against(installation: Installation, seed: int, seconds: float, say: Say) -> Result:
    """Load an installation, wait until all has arrived, and examine what it says and did."""
    began_at = time.monotonic()
    result = Result(seed=seed, done=())
    try:
        with Examination(installation, seed, say) as examination:
            examination.load(seconds)
            result.faults += examination.wait()
            result.faults += examination.examine()
            result.facts |= examination.facts
    except LocalError as error:
        result.faults.append(str(error))
    except Exception:  # noqa: BLE001  (a run that breaks is a failed one)
        result.faults.append(traceback.format_exc())
    result.facts["seconds"] = round(time.monotonic() - began_at)
    return result


class Examination:
    """``with`` makes the destinations, and removes them and the documents at the end.

    Attributes:
        ledger: what was sent.
        facts: what was counted.
    """

    def __init__(self, installation: Installation, seed: int, say: Say) -> None:
        self.ledger = Ledger()
        self.facts: dict[str, object] = {}
        self._installation = installation
        self._seed = seed
        self._say = say
        self._keys = {name: f"chaos-{seed}-{name}" for name in TEMPERS}
        self._since = (datetime.now(UTC) - CLOCKS_DIFFER).isoformat()
        self._client = Client(
            installation.address,
            api_key=installation.api_key,
            elsewhere=not _is_loopback(installation.address),
        )
        # What receives for another machine is reached from there.
        self._receivers = Receivers(
            seed,
            host="127.0.0.1" if installation.receive_at is None else "0.0.0.0",  # noqa: S104
            port=installation.port,
        )
        self._stored: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.enter_context(self._receivers)
            base = self._installation.receive_at or f"http://127.0.0.1:{self._receivers.port}"
            for name, key in self._keys.items():
                destination = registered(
                    self._client,
                    key=key,
                    url=f"{base.rstrip('/')}/{name}",
                    timeout_seconds=3,
                    retry={"schedule_seconds": LADDER_SECONDS},
                    # Broadcasts of others are none of ours.
                    filter={"attributes.token": {"$exists": True}},
                )
                self._stack.enter_context(destination)
            self._stack.callback(self._remove_documents)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def load(self, seconds: float) -> None:
        """Send documents, while somebody else pulls plugs."""
        key = self._installation.api_key
        sender = Sender(
            self.ledger,
            {WEB: self._installation.address.rstrip("/")},
            headers={"Authorization": f"Bearer {key}"} if key else {},
            members={"keys": list(self._keys.values())},
        )
        load = Load(self._seed, sender, [WEB])
        until = time.monotonic() + seconds
        load.start()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, TOLD_EVERY_SECONDS))
            accepted = self.ledger.count(Outcome.ACCEPTED)
            self._say(f"  {accepted} documents accepted; answers {dict(self.ledger.answers)}")
        load.stop()

    def wait(self) -> list[str]:
        """Wait until nothing is under way; return what still was when patience ended."""
        began_at = time.monotonic()
        patience = self._installation.patience_seconds
        while (left := self._under_way()) and time.monotonic() < began_at + patience:
            time.sleep(POLL_SECONDS)
        self.facts["quiet after"] = f"{time.monotonic() - began_at:.1f} s"
        return [f"after {patience:.0f} s: {one}" for one in left]

    def _under_way(self) -> list[str]:
        try:
            waited_for = self.ledger.accepted_ids() - self._stored
            self._stored |= {one for one, found in self._documents(waited_for) if found}
            left = [
                f"deliveries to {key} are open"
                for key in self._keys.values()
                if any(self._deliveries(key, state="open"))
            ]
            if missing := waited_for - self._stored:
                left.append(f"{len(missing)} accepted ids are not stored: {some(missing)}")
        except LocalError as error:
            return [str(error)]
        return left

    def examine(self) -> list[str]:
        """Compare what was sent, what is stored, what was planned, and what has arrived."""
        faults = self.ledger.unexpected[:SHOWN]
        newest: dict[str, int] = {}
        wrong = []
        sent = self.ledger.all()
        for document_id, found in self._documents(sent):
            stored = None
            if found is not None:
                newest[document_id] = token_in(found["content"])
                stored = (newest[document_id], found["version"])
            if fault := fault_of_stored(sent[document_id], stored):
                wrong.append(f"{document_id}: {fault}")
        faults += wrong[:SHOWN]
        if len(wrong) > SHOWN:
            faults.append(f"… and so on, {len(wrong)} documents in all")
        states: Counter[str] = Counter()
        for name, key in self._keys.items():
            faults += self._examine_receiver(name, key, newest, states)
        self.facts |= {
            "accepted": self.ledger.count(Outcome.ACCEPTED),
            "doubtful": self.ledger.count(Outcome.DOUBTFUL),
            "ids": len(sent),
            "stored": len(newest),
            "deliveries": dict(states),
            "repeats at receivers": sum(one.repeats for one in self._receivers.received.values()),
            "answers": dict(self.ledger.answers),
        }
        return faults

    def _examine_receiver(
        self, name: str, key: str, newest: dict[str, int], states: Counter[str]
    ) -> list[str]:
        received = self._receivers.received[name]
        by_document: defaultdict[str, set[int]] = defaultdict(set)
        for webhook_id, tokens in received.tokens.items():
            by_document[webhook_id.split("_")[1]] |= tokens
        recorded = list(self._deliveries(key))
        states.update(one["state"] for one in recorded)
        faults = {
            f"recorded as delivered, not at {name}": [
                one["webhook_id"]
                for one in recorded
                if one["state"] == "delivered" and one["webhook_id"] not in received.tokens
            ],
            f"given up for {name}": [one["id"] for one in recorded if one["state"] == "failed"],
            f"last version not at {name}": [
                one for one, token in newest.items() if token not in by_document[uuid.UUID(one).hex]
            ],
            f"one webhook-id with several contents at {name}": [
                one for one, tokens in received.tokens.items() if len(tokens) > 1
            ],
        }
        return [f"{what}: {len(which)}, {some(which)}" for what, which in faults.items() if which]

    # Questions

    def _documents(self, ids: Any) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Yield what is stored under ids, None where nothing is."""

        def read(document_id: str) -> tuple[str, dict[str, Any] | None]:
            try:
                return document_id, self._ask("GET", f"/documents/{document_id}")
            except InstanceRefused as error:
                if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
                    return document_id, None
                raise

        yield from self._at_once(read, ids)

    def _deliveries(self, key: str, **where: str) -> Iterator[dict[str, Any]]:
        query = {"destination_key": key, "since": self._since, "limit": str(PAGE), **where}
        while True:
            page = self._ask("GET", f"/deliveries?{urlencode(query)}")
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _ask(self, method: str, path: str) -> Any:
        """Ask until it answers: what was just killed may be starting."""
        until = time.monotonic() + self._installation.patience_seconds
        while True:
            try:
                return self._client.call(method, path)
            except (InstanceSilent, InstanceRefused) as error:
                there = isinstance(error, InstanceRefused) and error.status < 500
                if there or time.monotonic() > until:
                    raise
            time.sleep(POLL_SECONDS)

    def _at_once(self, work: Callable[[str], Any], ids: Any) -> Iterator[Any]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from pool.map(work, ids)

    def _remove_documents(self) -> None:
        for _ in self._at_once(
            lambda one: self._ask("POST", f"/documents/{one}/purge"), self.ledger.all()
        ):
            pass


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
