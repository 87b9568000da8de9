"""A concurrency limit that finds its own place, from what the receiver answers.

::

               slow: back, then search between good and bad
              ┌──────────────────────────────────────────────┐
              │   refused: that place is closed              │
              │  ┌────────────────────────────────────────┐  │
              │  │                                        ▼  ▼
    CLIMB: one more, two, four, … a turn                  HOLD: 10 s, twice as long each time that
              ▲                                              │  the next climb gains nothing
              ├───────────────── time is up ─────────────────┤
              │                                              │ slow, failing, not measured for long
              │                                              ▼
              └─────────────────────────────── EASE: half the limit, to see whether that helps.
                                               It does: search upwards from there.
                                               It does not: the limit is not to blame; restore it.

    nothing but failures: PAUSE, one request at a time, further and further apart; the first success
    begins a climb from the bottom

A *turn* is the time in which every place is used once under the present limit. Growth needs turns
in which all places were taken. A receiver that becomes slower by itself is not punished for it, and
a queue that we make ourselves does not pass for its nature: EASE tells the two apart.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel

from app.domain.concurrency import Bounds
from app.domain.deliveries import Outcome
from app.domain.latency import TRUSTED_ANSWERS, Latency
from app.domain.load import Sign, sign_of
from app.domain.pauses import Pause, PauseMemory
from app.domain.turns import Look, Turn
from app.domain.unhurried import HIGHEST_TOLERANCE, Unhurried

GUESS, SUSPICION = 0.0, 1.0
SURE, SURE_AT_FIRST = 3.0, 4.0
"""Standard deviations. A first climb that ends too soon costs most: it has few answers to go by."""
SUSPICIOUS_TURNS = 4
"""How many turns a climb waits for certainty."""
HICCUP_SECONDS = 0.1
"""A climb ends over slowness that lasts this long: one hiccup slows a whole turn of the quick."""
HOLD_SECONDS, LONGEST_HOLD_SECONDS = 10.0, 60.0
NEAR = 0.1
"""Good and bad limits this close, as a share of the limit, are not worth a search."""
CLOSED_BEFORE_EASE = 2


class Phase(StrEnum):
    """What the limit is doing."""

    CLIMB = "climb"
    HOLD = "hold"
    EASE = "ease"


class Memory(BaseModel):
    """What a controller knows, to go on with after a restart.

    Attributes:
        limit: to begin with; lower than the last one if that was being tried.
        why: it stands there.
        hold_seconds: until the next climb.
        next_hold_seconds: how long to hold if that gains nothing.
        pause: where requests go one by one.
        answers, seconds_log, squares: latency of the unhurried receiver.
        measured_seconds_ago: how old that is.
        tolerance: share of failures that is the receiver's nature.
    """

    limit: int
    why: str
    hold_seconds: float
    next_hold_seconds: float
    pause: PauseMemory
    answers: int
    seconds_log: float
    squares: float
    measured_seconds_ago: float
    tolerance: float


class AdaptiveConcurrency:
    """Implements ``Concurrency``."""

    def __init__(self, bounds: Bounds, *, now: float) -> None:
        """Begin at the lower bound.

        Args:
            bounds: of the limit.
            now: on the clock of all later calls.
        """
        self.bounds = bounds
        self._limit = bounds.min
        self._in_flight = 0
        self._places = 0
        self._failures_in_a_row = 0
        self._unhurried = Unhurried(now)
        self._pause = Pause()
        self._phase = Phase.CLIMB
        self._turn = Turn(now, 0, full=False)
        self._look = Look(now)
        self._first_climb = True
        self._good = bounds.min
        self._bad: int | None = None
        self._step = 1
        self._hold_seconds = HOLD_SECONDS
        self._hold_until = now
        self._closed = 0
        self._eased_from = bounds.min, self._turn
        self._why = ""

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        return 1 if self._pause.active else self._limit

    @property
    def reason(self) -> str:
        """Why the limit stands where it does, for people."""
        if self._pause.active:
            return f"one request every {self._pause.seconds:.2g} s: {self._why}"
        if self.bounds.min == self.bounds.max:
            return "fixed"
        if self._phase is Phase.EASE:
            return f"{self._why or 'nothing wrong'}; looking whether fewer are answered better"
        if self._phase is Phase.CLIMB:
            return f"{self._why or 'no sign of trouble'}; trying more"
        if self._limit == self.bounds.max:
            return "no sign of trouble; this is the most that is allowed"
        return self._why

    def acquire(self, now: float) -> int:
        """Take a place for one request and return its number; 0 when there is none now."""
        if self._in_flight >= self.limit or not self._pause.allows(now):
            return 0
        self._in_flight += 1
        self._places += 1
        if self._in_flight >= self._limit:
            self._turn.full = True
        self._pause.began(now)
        return self._places

    def wait_seconds(self, now: float) -> float | None:
        """Return when to ask again behind a refusal; None when the next release will tell."""
        return None if self._in_flight >= self.limit else self._pause.wait_seconds(now)

    def release(self, place: int, outcome: Outcome | None, now: float) -> None:
        """Give the place back, and learn from what came of it."""
        self._in_flight -= 1
        sign = Sign.NONE if outcome is None else sign_of(outcome)
        if outcome is None or sign is Sign.NONE:
            return
        if sign is Sign.FINE:
            self._on_answer(place, outcome.duration_seconds, now)
        else:
            self._on_failure(outcome, sign, now)

    # Answers

    def _on_answer(self, place: int, seconds: float, now: float) -> None:
        self._failures_in_a_row = 0
        self._unhurried.succeeded()
        is_fresh = place > self._turn.after
        if self._pause.active:
            if is_fresh:
                self._pause.succeeded(seconds)
                self._climb(self.bounds.min, now)
        elif self._phase is Phase.CLIMB:
            self._turn.add(seconds, fresh=is_fresh)
            if is_fresh:
                self._judge_climb(now)
        elif self._look.has_begun(now):
            self._turn.add(seconds, fresh=is_fresh)
            if self._look.is_over(self._turn.all, now):
                self._judge_look(now)

    def _judge_climb(self, now: float) -> None:
        turn, answers = self._turn, self._turn.fresh.answers
        is_over = answers >= self._limit
        if not is_over and answers & (answers - 1):
            return  # Within a turn a glance at 1, 2, 4, … answers is enough.
        if self._is_slow(turn.fresh, SURE_AT_FIRST if self._first_climb else SURE):
            if now - turn.began_at >= HICCUP_SECONDS:
                self._go_back(now)
        elif is_over and turn.full:
            waited = answers >= SUSPICIOUS_TURNS * self._limit
            if waited or not self._is_slow(turn.fresh, SUSPICION):
                self._climb_on(now)

    def _climb_on(self, now: float) -> None:
        if self._first_climb:
            self._unhurried.learn(self._turn)
        if self._limit > self._good * (1 + NEAR):
            self._hold_seconds = HOLD_SECONDS
        self._good = self._limit
        if self._limit >= self.bounds.max:
            self._hold(now)
        elif self._bad is not None:
            self._search(self._bad, now)
        else:
            self._step *= 2
            self._set(self._limit + self._step, now)

    def _judge_look(self, now: float) -> None:
        if self._phase is Phase.EASE:
            self._judge_ease(now)
        elif self._turn.full:
            self._judge_hold(now)
        else:
            self._renew(now)

    def _judge_hold(self, now: float) -> None:
        latency = self._turn.all
        if self._limit == self.bounds.min:
            if self._unhurried.measure(self._turn, now):
                self._hold_until = now
        elif self._is_slow(latency, SURE):
            self._ease(self._compare(latency), now)
            return
        elif self._unhurried.is_outdated(now):
            self._ease(self._why, now)
            return
        is_time = now >= self._hold_until and self._limit < self.bounds.max
        if is_time and not self._is_slow(latency, SUSPICION):
            self._climb(self._limit, now)
        elif latency.answers >= TRUSTED_ANSWERS:
            self._renew(now)

    def _judge_ease(self, now: float) -> None:
        eased, (limit, before) = self._turn, self._eased_from
        is_quicker = self._unhurried.is_quicker(eased.all, before.all)
        is_still_bad = eased.failing_share > HIGHEST_TOLERANCE or (
            is_quicker and self._is_slow(eased.all, GUESS)
        )
        if is_still_bad and self._limit > self.bounds.min:
            self._ease(self._why, now)
            return
        self._unhurried.measure(eased, now)
        if is_quicker or eased.failing_share < before.failing_share / 2:
            self._search(limit, now)
        else:
            self._set(limit, now)
            self._hold(now)

    def _is_slow(self, latency: Latency, sigmas: float) -> bool:
        return self._unhurried.is_exceeded_by(latency, sigmas)

    def _compare(self, latency: Latency) -> str:
        took, usual = (1000 * one.seconds for one in (latency, self._unhurried.latency))
        return f"with {self._limit} at a time answers took {took:.0f} ms instead of {usual:.0f} ms"

    # Failures

    def _on_failure(self, outcome: Outcome, sign: Sign, now: float) -> None:
        self._failures_in_a_row += 1
        self._turn.failures += 1
        if sign is Sign.STRAINED and self._is_tolerable():
            return
        said = outcome.error or f"HTTP {outcome.status}"
        why = f"with {self._limit} at a time: {said}"
        if self._limit == self.bounds.min:
            is_alone = self.bounds.min == 1
            if (is_alone and sign is Sign.REFUSED) or self._is_dead:
                self._pause.failed(outcome, now)
                self._climb(self.bounds.min, now)
                self._why = said
        elif sign is Sign.STRAINED and self._closed == CLOSED_BEFORE_EASE:
            self._closed += 1
            self._ease(why, now)
        else:
            self._close(why, now)

    @property
    def _is_dead(self) -> bool:
        return self._failures_in_a_row >= 2 * self.bounds.min

    def _is_tolerable(self) -> bool:
        if self._phase is Phase.EASE:
            return self._turn.failures <= 1 + HIGHEST_TOLERANCE * self._turn.all.answers
        return self._unhurried.tolerates_failure()

    # Moves

    def _climb(self, limit: int, now: float) -> None:
        self._phase = Phase.CLIMB
        self._good, self._bad = limit, None
        self._step = 1
        self._set(limit if limit == self.bounds.min else limit + 1, now)

    def _search(self, bad: int, now: float) -> None:
        """Climb from the present limit, which is good, to somewhere below a bad one."""
        self._good, self._bad = self._limit, bad
        if self._is_near(bad):
            self._hold(now)
        else:
            self._phase = Phase.CLIMB
            self._set(self._limit + (bad - self._limit) // 2, now)

    def _go_back(self, now: float) -> None:
        self._why = self._compare(self._turn.fresh)
        self._first_climb = False
        self._bad = self._limit
        self._set(min(self._good, self._bad - 1), now)
        if self._is_near(self._bad):
            self._hold(now)

    def _is_near(self, bad: int) -> bool:
        return bad - self._limit <= max(1, NEAR * self._limit)

    def _close(self, why: str, now: float) -> None:
        """Do not fill the place again whose request was refused."""
        self._why = why
        self._closed += 1
        before = self._turn
        # What did well under the last limit is not doubted by what comes of trying more.
        least = self._good if self._phase is Phase.CLIMB else 0
        self._set(min(self._limit - 1, max(self._in_flight, least)), now)
        if self._phase is Phase.EASE:
            self._settle(before, now)
        else:
            self._hold(now)

    def _hold(self, now: float) -> None:
        if self._phase is not Phase.HOLD:
            self._hold_until = now + self._hold_seconds
            self._hold_seconds = min(2 * self._hold_seconds, LONGEST_HOLD_SECONDS)
            self._closed = 0
        self._phase = Phase.HOLD
        self._first_climb = False
        before = self._turn
        self._renew(now)
        self._settle(before, now)

    def _ease(self, why: str, now: float) -> None:
        self._why = why
        if self._phase is not Phase.EASE:
            self._eased_from = self._limit, self._turn
        self._phase = Phase.EASE
        before = self._turn
        self._set(self._limit // 2, now)
        self._settle(before, now)

    def _set(self, limit: int, now: float) -> None:
        self._limit = max(self.bounds.min, min(limit, self.bounds.max))
        self._renew(now)

    def _renew(self, now: float) -> None:
        self._turn = Turn(now, self._places, full=self._in_flight >= self._limit)
        self._look = Look(now)

    def _settle(self, before: Turn, now: float) -> None:
        """Look away until the requests of the limit before are over."""
        longest = max(before.all.seconds, self._unhurried.latency.seconds)
        self._look = Look(now, settle_seconds=longest)

    # Across changes and restarts

    def set_bounds(self, bounds: Bounds, now: float) -> None:
        """Keep to other bounds from now on."""
        if bounds != self.bounds:
            self.bounds = bounds
            self._set(self._limit, now)

    @property
    def settled_limit(self) -> int:
        """The limit without what is only being tried."""
        if self._phase is Phase.HOLD:
            return self._limit
        return self._good if self._phase is Phase.CLIMB else self._eased_from[0]

    def remember(self, now: float) -> Memory:
        """Return what to go on with later."""
        latency = self._unhurried.latency
        return Memory(
            limit=self.settled_limit,
            why=self._why,
            hold_seconds=max(0.0, self._hold_until - now),
            next_hold_seconds=self._hold_seconds,
            pause=self._pause.remember(now),
            answers=latency.answers,
            seconds_log=latency.mean,
            squares=latency.squares,
            measured_seconds_ago=now - self._unhurried.measured_at,
            tolerance=self._unhurried.tolerance,
        )

    @classmethod
    def recall(cls, bounds: Bounds, memory: Memory, *, now: float) -> AdaptiveConcurrency:
        """Go on with what was remembered; bounds may have changed meanwhile."""
        made = cls(bounds, now=now)
        latency = Latency(memory.answers, memory.seconds_log, memory.squares)
        made._unhurried.recall(latency, memory.tolerance, now - memory.measured_seconds_ago)
        made._why = memory.why
        made._pause = Pause.recall(memory.pause, now=now)
        if memory.answers and not made._pause.active:
            made._set(memory.limit, now)
            made._hold(now)
            made._hold_until = now + memory.hold_seconds
            made._hold_seconds = memory.next_hold_seconds
        return made
