"""Clients: single documents, arrays, uploads; new ids, and updates with and without versions."""

from __future__ import annotations

import http.client
import random
import threading
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import orjson

from tests.chaos.ledger import Ledger, Outcome, Sent
from tests.chaos.receivers import content_of

CLIENTS = 4
ANSWER_SECONDS = 10.0
UPDATES_SHARE = 0.35
OWN_IDS = 12
SHARED_IDS = 12
LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.02, 0.25
AFTER_FAILURE_SECONDS = 0.1
EXPECTED = {"202", "200", "503"}
"""Answers that promises allow; anything else from a server is a fault of the product."""
TEXTS = (
    "The shuttle reached orbit after a flawless launch.",
    "The goalie stopped thirty shots and the team won in overtime.",
    "My graphics card shows artefacts since I updated the driver.",
    "For sale: a bicycle, hardly used, blue.",
)
_WAYS: Sequence[str] = ("single",) * 7 + ("batch",) * 2 + ("bulk",)


class Sender:
    """Sends documents to one web process and notes what it was told.

    Args:
        ledger: keeps the notes.
        webs: address of each, by its name.
        headers: sent with every request.
        members: of every document, beside those that tell it from others.
    """

    def __init__(
        self,
        ledger: Ledger,
        webs: Mapping[str, str],
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        members: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._ledger = ledger
        self._webs = {name: urlsplit(address) for name, address in webs.items()}
        self._headers = headers
        self._members = members

    def send(self, way: str, web: str, documents: Sequence[tuple[str, int | None]]) -> list[Sent]:
        """Send documents in a request; ids with versions, None to send none."""
        sent = self._ledger.begin([(one, version or 0) for one, version in documents], web)
        bodies = [
            orjson.dumps({**self._members, **_document(one, version)})
            for one, (_, version) in zip(sent, documents, strict=True)
        ]
        try:
            status = self._request(way, web, bodies, sent)
        except (OSError, http.client.HTTPException) as error:
            self._ledger.note(type(error).__name__)
            return sent
        self._ledger.note(str(status))
        if str(status) not in EXPECTED:
            self._ledger.unexpected.append(f"{way} to {web}: {status}")
        return sent

    def _request(self, way: str, web: str, bodies: Sequence[bytes], sent: list[Sent]) -> int:
        where = self._webs[web]
        connection = _CONNECTIONS[where.scheme](where.netloc, timeout=ANSWER_SECONDS)
        try:
            path, headers, body = _FORMS[way](bodies)
            connection.request("POST", where.path + path, body, {**self._headers, **headers})
            response = connection.getresponse()
            if response.status == 200:
                self._read_lines(response, sent)
            else:
                response.read()
                outcome = _outcome(response.status)
                for one in sent:
                    self._ledger.end(one, outcome)
            return response.status
        finally:
            connection.close()

    def _read_lines(self, response: http.client.HTTPResponse, sent: list[Sent]) -> None:
        """Read the result lines of an upload; those that a break cuts off stay in doubt."""
        for line in response:
            result = orjson.loads(line)
            if "line" in result:
                accepted = result["status"] == "accepted"
                self._ledger.end(
                    sent[result["line"] - 1],
                    Outcome.ACCEPTED if accepted else Outcome.REFUSED,
                )


def _outcome(status: int) -> Outcome:
    if status == 202:
        return Outcome.ACCEPTED
    return Outcome.DOUBTFUL if status >= 500 else Outcome.REFUSED


def _document(sent: Sent, version: int | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": sent.id,
        "content": content_of(sent.token, TEXTS[sent.token % len(TEXTS)]),
        "attributes": {"token": sent.token},
    }
    if version is not None:
        document["version"] = version
    return document


_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
_JSON = {"Content-Type": "application/json"}
_FORMS = {
    "single": lambda bodies: ("/documents", _JSON, bodies[0]),
    "batch": lambda bodies: ("/documents/batch", _JSON, b"[%b]" % b",".join(bodies)),
    "bulk": lambda bodies: (
        "/documents/bulk",
        {"Content-Type": "application/x-ndjson", "Accept": "application/x-ndjson"},
        b"\n".join(bodies),
    ),
}


class Load:
    """Clients on threads of their own, until they are told to stop."""

    def __init__(self, seed: int, sender: Sender, webs: Sequence[str]) -> None:
        self._sender = sender
        self._webs = list(webs)
        self._stopping = threading.Event()
        shared = [f"shared {number}" for number in range(SHARED_IDS)]
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(random.Random(f"load {seed} {number}"), _ids(seed, number, shared)),  # noqa: S311
                name=f"client-{number}",
                daemon=True,
            )
            for number in range(CLIENTS)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End behind the requests that are under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(3 * ANSWER_SECONDS)

    def _run(self, random_: random.Random, updated: Sequence[str]) -> None:
        pause, progress = 0.0, 0
        while not self._stopping.wait(pause):
            progress += 1
            way = random_.choice(_WAYS)
            count = {"single": 1, "batch": random_.randint(2, 20)}.get(way, random_.randint(5, 40))
            documents = [_draw(random_, updated, progress) for _ in range(count)]
            sent = self._sender.send(way, random_.choice(self._webs), documents)
            pause = random_.uniform(LEAST_PAUSE_SECONDS, MOST_PAUSE_SECONDS)
            if all(one.outcome is not Outcome.ACCEPTED for one in sent):
                pause += AFTER_FAILURE_SECONDS


def _draw(random_: random.Random, updated: Sequence[str], progress: int) -> tuple[str, int | None]:
    if random_.random() >= UPDATES_SHARE:
        return str(uuid.UUID(int=random_.getrandbits(128), version=4)), None
    place = random_.randrange(len(updated))
    # A third of these ids never has versions, a third always, and a third sometimes.
    versioned = (False, True, random_.random() < 0.5)[place % 3]
    # They rise on the whole, and often fall: the highest wins, whenever it comes.
    version = max(1, progress // 2 + random_.randint(-5, 5)) if versioned else None
    return updated[place], version


def _ids(seed: int, client: int, shared: Sequence[str]) -> list[str]:
    """Return the ids that a client updates: some of its own, some that all update."""
    own = [f"client {client} {number}" for number in range(OWN_IDS)]
    return [
        str(uuid.UUID(int=random.Random(f"{seed} {name}").getrandbits(128), version=4))  # noqa: S311
        for name in (*own, *shared)
    ]
