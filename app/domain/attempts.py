"""Attempts: what is kept of each request beside what it came to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["name_ms", "connect_ms", "tls_ms"]


@dataclass(slots=True)
class Trace:
    """Where the time of a request went, and what was answered; filled as the request goes on.

    Attributes:
        reused: it went out on a connection that an earlier request had opened.
        name_ms: looking up the name; None where a phase was not reached or not needed. Likewise:
        connect_ms: TCP, all addresses that were tried.
        tls_ms: the handshake.
        wait_ms: from sending to the first byte of the answer.
        rest_ms: from there to the end of the answer.
        total_ms: of all, retries on another connection included.
        headers: of the answer, a JSON object as text: names in lower case, the values of repeated
            ones joined by commas.
        body: the beginning of the answer's.
    """

    reused: bool | None = None
    name_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    wait_ms: float | None = None
    rest_ms: float | None = None
    total_ms: float | None = None
    headers: str | None = None
    body: str | None = None
    _began: float = field(default_factory=time.perf_counter, repr=False)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Measure a phase, also one that fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, _milliseconds(began, time.perf_counter()))

    def exchanged(self, sent: float, first_byte: float | None) -> None:
        """Take the times of an exchange that ends now, by ``time.perf_counter``."""
        now = time.perf_counter()
        self.wait_ms = _milliseconds(sent, first_byte or now)
        self.rest_ms = None if first_byte is None else _milliseconds(first_byte, now)

    def ended(self) -> float:
        """The request is over; return how many seconds it took."""
        seconds = time.perf_counter() - self._began
        self.total_ms = seconds * 1000
        return seconds


def _milliseconds(began: float, ended: float) -> float:
    return (ended - began) * 1000
