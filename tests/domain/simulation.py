"""Receivers of webhooks as models, and a clock that jumps from answer to answer.

A model decides when a request begins how long its answer takes and what it is; the load is endless,
so that a limit alone decides how much is in flight.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from app.domain.concurrency import Concurrency
from app.domain.deliveries import Outcome, OutcomeKind, classify_response

Spread = Callable[[random.Random], float]
"""A factor on the base latency."""


def steady(_: random.Random) -> float:
    return 1.0


def lognormal(sigma: float) -> Spread:
    """A median of 1; one answer in six is exp(sigma) times as slow or slower."""
    return lambda source: math.exp(source.gauss(0, sigma))


def pareto(alpha: float) -> Spread:
    """Never below 1, with a tail that has no variance for an alpha of 2 or less."""
    return lambda source: source.paretovariate(alpha)


def outliers(share: float, factor: float) -> Spread:
    """Most answers alike, a few far slower."""
    return lambda source: factor if source.random() < share else 1.0


class Answer(NamedTuple):
    """When the answer comes, in seconds from the request, and its status; 0 for none."""

    seconds: float
    status: int


class Receiver(Protocol):
    def answer(self, now: float, in_flight: int, source: random.Random) -> Answer: ...


@dataclass
class Quick:
    """Takes its time, whatever the load."""

    base: float
    spread: Spread = steady

    def answer(self, now: float, in_flight: int, source: random.Random) -> Answer:  # noqa: ARG002
        return Answer(self.base * self.spread(source), 200)


@dataclass
class Knee:
    """``places`` workers and a queue in front of them: latency grows beyond as many in flight."""

    base: float
    places: int
    spread: Spread = steady
    free_at: list[float] = field(default_factory=list)

    def answer(self, now: float, in_flight: int, source: random.Random) -> Answer:  # noqa: ARG002
        starts_at = now
        if len(self.free_at) >= self.places:
            starts_at = max(now, heapq.heappop(self.free_at))
        ends_at = starts_at + self.base * self.spread(source)
        heapq.heappush(self.free_at, ends_at)
        return Answer(ends_at - now, 200)


@dataclass
class Thrashing:
    """Beyond ``places`` in flight everything takes the square of the excess longer."""

    base: float
    places: int
    spread: Spread = steady

    def answer(self, now: float, in_flight: int, source: random.Random) -> Answer:  # noqa: ARG002
        excess = max(1.0, in_flight / self.places)
        return Answer(self.base * excess**2 * self.spread(source), 200)


@dataclass
class Throttling:
    """Refuses what comes while ``places`` are being answered."""

    behind: Receiver
    places: int
    status: int = 429
    refusal_seconds: float = 0.01
    ends_at: list[float] = field(default_factory=list)

    def answer(self, now: float, in_flight: int, source: random.Random) -> Answer:
        while self.ends_at and self.ends_at[0] <= now:
            heapq.heappop(self.ends_at)
        if len(self.ends_at) >= self.places:
            return Answer(self.refusal_seconds, self.status)
        answer = self.behind.answer(now, in_flight, source)
        heapq.heappush(self.ends_at, now + answer.seconds)
        return answer


@dataclass
class RateLimited:
    """Refuses beyond so many requests a second, with a bucket for bursts."""

    behind: Receiver
    per_second: float
    burst: float
    tokens: float = -1.0
    at: float = 0.0

    def answer(self, now: float, in_flight: int, source: random.Random) -> Answer:
        if self.tokens < 0:
            self.tokens = self.burst
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_second)
        self.at = now
        if self.tokens < 1:
            return Answer(0.002, 429)
        self.tokens -= 1
        return self.behind.answer(now, in_flight, source)


@dataclass
class Dead:
    """Nobody there from one moment to another: refused at once (0 with a short time) or silent."""

    behind: Receiver
    begins_at: float
    ends_at: float
    seconds: float = 0.001

    def answer(self, now: float, in_flight: int, source: random.Random) -> Answer:
        if self.begins_at <= now < self.ends_at:
            return Answer(self.seconds, 0)
        return self.behind.answer(now, in_flight, source)


@dataclass
class Failing:
    """A share of the answers is an error, whatever the load."""

    behind: Receiver
    share: float
    status: int

    def answer(self, now: float, in_flight: int, source: random.Random) -> Answer:
        answer = self.behind.answer(now, in_flight, source)
        if source.random() < self.share:
            return answer._replace(status=self.status)
        return answer


@dataclass
class Slower:
    """From a moment on everything takes so many times as long."""

    behind: Receiver
    begins_at: float
    factor: float

    def answer(self, now: float, in_flight: int, source: random.Random) -> Answer:
        answer = self.behind.answer(now, in_flight, source)
        return answer._replace(
            seconds=answer.seconds * (self.factor if now >= self.begins_at else 1)
        )


class Ended(NamedTuple):
    """One request: when it began and ended, and its status."""

    began_at: float
    ended_at: float
    status: int

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began_at


@dataclass
class Run:
    """What came of a simulation."""

    ended: list[Ended]
    limits: list[tuple[float, int]]

    def between(self, start: float, end: float) -> Run:
        return Run([one for one in self.ended if start <= one.ended_at < end], self.limits)

    def windows(self, start: float, end: float, seconds: float = 10.0) -> list[Run]:
        count = int((end - start) / seconds)
        found = [Run([], self.limits) for _ in range(count)]
        for one in self.ended:
            if start <= one.ended_at < start + count * seconds:
                found[int((one.ended_at - start) / seconds)].ended.append(one)
        return found

    @property
    def successes(self) -> int:
        return sum(one.status == 200 for one in self.ended)

    @property
    def error_share(self) -> float:
        return 1 - self.successes / len(self.ended) if self.ended else 0.0

    @property
    def mean_latency(self) -> float:
        times = [one.seconds for one in self.ended if one.status == 200]
        return sum(times) / len(times)


def outcome_of(answer: Answer) -> Outcome:
    kind = classify_response(answer.status, {}) if answer.status else OutcomeKind.TEMPORARY
    error = None if answer.status else "no connection"
    return Outcome(
        kind=kind,
        status=answer.status or None,
        error=error,
        duration_seconds=answer.seconds,
    )


def simulate(
    concurrency: Concurrency, receiver: Receiver, *, seconds: float, seed: int = 1, start: float = 0
) -> Run:
    """Keep as much in flight as the limit allows."""
    source = random.Random(seed)  # noqa: S311  (a simulation)
    now, order, in_flight, wake_at = start, 0, 0, math.inf
    coming: list[tuple[float, int, int, float, Answer]] = []
    run = Run([], [])
    while now < start + seconds:
        while place := concurrency.acquire(now):
            in_flight += 1
            answer = receiver.answer(now, in_flight, source)
            order += 1
            heapq.heappush(coming, (now + answer.seconds, order, place, now, answer))
        wait = concurrency.wait_seconds(now)
        wake_at = math.inf if wait is None else now + max(wait, 1e-6)
        if not coming or wake_at < coming[0][0]:
            assert wake_at < math.inf, "nothing in flight, and no place"
            now = wake_at
            continue
        now, _, place, began_at, answer = heapq.heappop(coming)
        in_flight -= 1
        run.ended.append(Ended(began_at, now, answer.status))
        concurrency.release(place, outcome_of(answer), now)
        if not run.limits or run.limits[-1][1] != concurrency.limit:
            run.limits.append((now, concurrency.limit))
    return run
