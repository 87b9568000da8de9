"""Requests made up from the OpenAPI description, some of them about things that exist."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

PROBLEM = "application/problem+json"


@schemathesis.serializer("application/x-ndjson")
def _lines(_: object, value: object) -> bytes:
    return value.encode(errors="replace") if isinstance(value, str) else json.dumps(value).encode()


class MadeUp:
    """Sends what hypothesis draws, and keeps what the server should not have answered.

    Attributes:
        statuses: how often which was answered.
        faults: descriptions of wrong answers, by operation.
    """

    def __init__(self, url: str, known: dict[str, list[str]]) -> None:
        """Begin.

        Args:
            url: of the server.
            known: values of path parameters that exist; grows with what requests create.
        """
        self.statuses: Counter[int] = Counter()
        self.faults: list[str] = []
        self._url = url
        self._known = known
        self._session = requests.Session()
        self._description = schemathesis.openapi.from_url(f"{url}/openapi.json")

    def run(self, cases: int, start: int) -> None:
        """Send at least so many requests, over all operations, valid ones and invalid ones.

        Args:
            cases: how many.
            start: the seed; the same draws the same.
        """
        operations = [one.ok() for one in self._description.get_all_operations()]
        while (left := cases - self.statuses.total()) > 0:
            # Some have few forms, so that others are asked for more.
            each = max(2, min(200, left // (2 * len(operations))))
            for operation in operations:
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    start += 1
                    self._run_operation(operation, mode, each, start)
        self._session.close()

    def _run_operation(self, operation, mode, count, start):
        @seed(start)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode), st.randoms(use_true_random=False))
        def send(case, draw):
            self._send(case, draw)

        try:
            send()
        except Exception as error:  # noqa: BLE001  (one that has no invalid form, for example)
            if "Unsatisfiable" not in type(error).__name__:
                self.faults.append(f"{operation.label} ({mode}): {error!r}")

    def _send(self, case, draw: random.Random) -> None:
        for name in case.path_parameters or {}:
            if self._known.get(name) and draw.random() < 0.5:
                case.path_parameters[name] = draw.choice(self._known[name])
        if isinstance(case.body, dict) and "url" in case.body and draw.random() < 0.7:
            # One that destinations may have; nearly no other string is.
            case.body["url"] = draw.choice(self._known["url"])
        try:
            answer = case.call(base_url=self._url, session=self._session, timeout=30)
        except requests.exceptions.InvalidHeader:  # nothing that can be sent
            return
        self.statuses[answer.status_code] += 1
        if fault := _fault(answer):
            self.faults.append(
                f"{case.operation.label}: {fault}\n{case.as_curl_command()[:2000]}\n"
                f"{answer.text[:500]}"
            )
        created = answer.headers.get("location", [""])
        self._remember(created if isinstance(created, str) else created[0])

    def _remember(self, location: str) -> None:
        if found := re.fullmatch(r"/(destinations|documents|batches)/([^/]+)", location):
            name = {"destinations": "destination_id", "documents": "document_id"}.get(
                found[1], "batch_id"
            )
            self._known.setdefault(name, []).append(found[2])


def _fault(answer) -> str | None:
    status = answer.status_code
    kind = answer.headers.get("content-type", [""])
    kind = kind if isinstance(kind, str) else kind[0]
    if status >= 500 and status != 503:
        return f"answered {status}"
    if status >= 400 and answer.request.method != "HEAD":
        if kind != PROBLEM:
            return f"a {status} is {kind!r} and no problem"
        if status == 503 and "retry-after" not in answer.headers:
            return "a 503 that does not say when to come again"
    return None
