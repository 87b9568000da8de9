"""A machine that draws what happens to deliveries, beside a model of what must come of it."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Engine, text

from app.domain.delivery_ids import DeliveryPlace
from app.domain.destinations import DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT, accepted_at
from app.domain.errors import DeliveryNotReplayable
from app.domain.routing import Route
from app.services.deliveries import replay_delivery
from app.services.destinations import pause_destination, resume_destination
from app.storage import counters, deliveries, destinations, documents, holds, leases, replays
from app.storage.deliveries import DeliveryKey, DeliveryResult, DeliveryState
from app.storage.documents import IncomingDocument
from app.storage.engine import transaction
from app.storage.ingest import ClassifiedChunk, apply

OPEN = ("pending", "held")
ENDED = ("delivered", "failed", "superseded", "cancelled")
BOTH = (0, 1)
# Most chunks plan something, because nothing else can be recorded, held or replayed.
TARGETS = st.sampled_from([BOTH, BOTH, (0,), (1,), ()])
MOSTLY = st.sampled_from([True, True, True, False])
_numbers = itertools.count(1)


class Deliveries(RuleBasedStateMachine):
    """Two documents, two destinations, and what may happen to them.

    It begins where most things can happen: both documents are on their way to both destinations,
    whose leases have changed hands, and one may be paused. From nothing, the steps seldom came as
    far as a replay, and mistakes about held deliveries, generations and epochs went unseen.
    """

    engine: ClassVar[Engine]

    def __init__(self):
        super().__init__()
        self.rows = {}
        self.attempts = {}
        self.stored = {}
        self.tombstones = {}
        self.used = set()
        self.sent = []
        self.chunks = []
        self.leases = {}
        self.paused = set()
        self.deleted = set()
        self.accepted = self.removed = 0
        # What runs before this one have left behind ends now, and is no part of its counts.
        self._sweep()
        self.before = self._counted()
        self.seq = 1_700_000_000_000_000 + 1_000_000 * next(_numbers)

    @initialize(one_is_paused=st.booleans())
    def begin(self, one_is_paused):
        # In order, like everything that is drawn from: the same draws choose the same rows again.
        self.ids = sorted(uuid.uuid4() for _ in BOTH)
        self.targets = []
        for _ in BOTH:
            given = DestinationInput(key=uuid.uuid4().hex, url="http://example.com/hook")
            made = make_destination(DEFAULT_TENANT, given, now=datetime.now(UTC))
            with transaction(self.engine) as connection:
                destinations.create(connection, made)
            self.targets.append(made.id)
        self.targets.sort()
        for which in BOTH:
            self.take_lease(which)
            self.take_lease(which)
        self.store([(0, 0, 0), (1, 0, 0)], BOTH)
        if one_is_paused:
            self.pause(1, paused=True, ticks=True)

    # What comes in

    @rule(
        versions=st.lists(
            st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(-5, 5)),
            min_size=1,
            max_size=3,
        ),
        to=TARGETS,
    )
    def store(self, versions, to):
        """A chunk: some versions of some documents, which may be older than what is there."""
        incoming = []
        for which, version, jump in versions:
            seq = self.seq + jump
            while seq in self.used:
                seq += 1
            self.used.add(seq)
            self.seq = max(self.seq, seq) + 1
            incoming.append(document(self.ids[which], version, seq))
        self.sent += incoming
        self._store(incoming, to)

    @rule(data=st.data(), to=TARGETS)
    def store_again(self, data, to):
        """A rejected document that is retried comes in a chunk of its own, under its old number."""
        self._store([data.draw(st.sampled_from(self.sent))], to)

    @rule(data=st.data())
    def repeat_a_chunk(self, data):
        """Receipts: the second time it changes nothing."""
        self._apply(*data.draw(st.sampled_from(self.chunks)))

    @rule(which=st.integers(0, 1))
    def delete_document(self, which):
        one = self.ids[which]
        with transaction(self.engine) as connection:
            there = documents.delete(connection, DEFAULT_TENANT, one)
        assert there == (one in self.stored)
        if there:
            self.removed += 1
            self.tombstones[one] = self.stored.pop(one)
            self._end_open(lambda row: row.document_id == one, "cancelled")

    # What goes out

    @rule(which=st.integers(0, 1))
    def take_lease(self, which):
        """A new epoch; holders of older ones do not know yet."""
        target = self.targets[which]
        with transaction(self.engine) as connection:
            lease = leases.acquire(connection, DEFAULT_TENANT, target, "h", -1.0)
        self.leases.setdefault(target, []).append(lease)

    @rule(
        data=st.data(),
        state=st.sampled_from(["delivered", "failed", "pending"]),
        attempts=st.integers(1, 3),
        current=st.booleans(),
    )
    def record(self, data, state, attempts, current):
        key = self._draw_row(data, lambda key: self.rows[key] != "delivered")
        held = self.leases[key.destination_id]
        with transaction(self.engine) as connection:
            deliveries.record(
                connection, held[-1 if current else 0], [_result(key, state, attempts)]
            )
        before = self.rows[key]
        counts = (current and before in OPEN) or state == "delivered"
        if before == "delivered" or not counts:
            return
        self.attempts[key] = attempts
        if state != "pending":
            self.rows[key] = state

    @rule(data=st.data(), current=st.booleans())
    def mark(self, data, current):
        key = self._draw_row(data, lambda key: self.rows[key] == "pending")
        lease = self.leases[key.destination_id][-1 if current else 0]
        with transaction(self.engine) as connection:
            deliveries.mark_attempts(connection, lease, [key])
        self.attempts[key] += current and self.rows[key] == "pending"

    @rule(which=st.integers(0, 1), paused=MOSTLY, ticks=MOSTLY)
    def pause(self, which, paused, ticks):
        target = self.targets[which]
        if target not in self.deleted:
            change = pause_destination if paused else resume_destination
            change(self.engine, DEFAULT_TENANT, target)
            (self.paused.add if paused else self.paused.discard)(target)
        if ticks:
            self.tick()

    @rule()
    def tick(self):
        self._sweep()
        for key, state in self.rows.items():
            if state in OPEN:
                if key.destination_id in self.deleted:
                    self.rows[key] = "cancelled"
                else:
                    paused = key.destination_id in self.paused
                    self.rows[key] = "held" if paused else "pending"

    @precondition(lambda self: not self.deleted)
    @rule(which=st.integers(0, 1), ticks=MOSTLY)
    def delete_destination(self, which, ticks):
        with transaction(self.engine) as connection:
            destinations.soft_delete(connection, DEFAULT_TENANT, self.targets[which])
        self.deleted.add(self.targets[which])
        if ticks:
            self.tick()

    @rule(data=st.data(), looks=st.booleans())
    def replay(self, data, looks):
        """By the service, or by one who has looked before the last steps and believes it may be."""
        key = self._draw_row(
            data, lambda key: self.rows[key] not in OPEN and self._is_stored(key), mostly=4
        )
        newest = max(one for one in self.rows if one[:4] == key[:4])
        place = DeliveryPlace(*key[1:])
        new = newest._replace(generation=newest.generation + 1)
        if not looks:
            may = self.rows[newest] not in OPEN and self._is_stored(key)
            with transaction(self.engine) as connection:
                planned = replays.plan(connection, DEFAULT_TENANT, [place])
            assert planned == ([DeliveryPlace(*new[1:])] if may else [])
        elif reason := self._why_not(newest):
            may = False
            with pytest.raises(DeliveryNotReplayable, match=reason):
                replay_delivery(self.engine, DEFAULT_TENANT, place)
        else:
            may = True
            made = replay_delivery(self.engine, DEFAULT_TENANT, place)
            assert made.place == DeliveryPlace(*new[1:])
        if may:
            self._plan(new)

    # What must hold

    @invariant()
    def rows_are_as_the_model_says(self):
        if not self.sent:
            return
        with transaction(self.engine) as connection:
            found = {
                DeliveryKey(DEFAULT_TENANT, *row[:4]): (row.state, row.attempts)
                for row in connection.execute(
                    text(
                        "SELECT document_id, seq, destination_id, generation, state, attempts"
                        " FROM deliveries WHERE document_id = ANY(:ids) AND event_type IS NULL"
                    ),
                    {"ids": self.ids},
                )
            }
            newest = {
                row.id: (row.version, row.seq)
                for row in connection.execute(
                    text("SELECT id, version, seq FROM documents WHERE id = ANY(:ids)"),
                    {"ids": self.ids},
                )
            }
        assert found == {key: (self.rows[key], self.attempts[key]) for key in self.rows}
        assert newest == self.stored
        still_open = [key for key, (state, _) in found.items() if state in OPEN]
        families = Counter(key[:4] for key in still_open)
        assert not families or max(families.values()) == 1
        assert all(self._is_stored(key) for key in still_open)

    @invariant()
    def counters_say_what_the_rows_do(self):
        counted = self._counted()
        counted.subtract(self.before)
        states = Counter(self.rows.values())
        assert [counted[f"deliveries.{one}"] for one in ENDED] == [states[one] for one in ENDED]
        assert counted["deliveries.planned"] == len(self.rows)
        assert counted["documents.deleted"] == self.removed
        assert counted["documents.created"] == self.removed + len(self.stored)
        assert counted["documents.stored"] + counted["documents.stale"] == self.accepted

    def _counted(self):
        """Return the counters: this run's, and those of all before it."""
        with transaction(self.engine) as connection:
            return Counter(counters.totals(connection, DEFAULT_TENANT))

    def _sweep(self):
        with transaction(self.engine) as connection:
            holds.hold(connection, DEFAULT_TENANT)
            holds.resume(connection, DEFAULT_TENANT)
            deliveries.cancel_of_deleted_destinations(connection, DEFAULT_TENANT)
            counters.fold(connection, DEFAULT_TENANT)

    # The model

    def _draw_row(self, data, wanted, mostly=2):
        """Draw a delivery, mostly one with which something will happen."""
        fitting = sorted(filter(wanted, self.rows))
        pool = fitting if fitting and data.draw(st.integers(0, mostly)) else sorted(self.rows)
        return data.draw(st.sampled_from(pool))

    def _store(self, incoming, to):
        targets = [self.targets[n] for n in to if self.targets[n] not in self.deleted]
        chunk = chunk_of(incoming)
        self.chunks.append((chunk, targets))
        self.accepted += len(incoming)
        self._apply(chunk, targets)
        newest = {}
        for one in sorted(incoming, key=lambda one: one.order_key):
            newest[one.id] = one.order_key
        for one, key in newest.items():
            known = max(
                filter(None, [self.stored.get(one), self.tombstones.get(one)]), default=None
            )
            if known is None or key > known:
                self.stored[one] = key
                self._end_open(lambda row, one=one: row.document_id == one, "superseded")
                for target in targets:
                    self._plan(DeliveryKey(DEFAULT_TENANT, one, key.seq, target, 0))

    def _apply(self, chunk, targets):
        with transaction(self.engine) as connection:
            apply(
                connection,
                DEFAULT_TENANT,
                [chunk],
                lambda _: [Route(one, "broadcast") for one in targets],
            )

    def _plan(self, key):
        assert key not in self.rows
        self.rows[key] = "pending"
        self.attempts[key] = 0

    def _end_open(self, which, state):
        for key, before in self.rows.items():
            if before in OPEN and which(key):
                self.rows[key] = state

    def _is_stored(self, key):
        stored = self.stored.get(key.document_id)
        return stored is not None and stored.seq == key.seq

    def _why_not(self, newest):
        if self.rows[newest] in OPEN:
            return f"still {self.rows[newest]}"
        if newest.destination_id in self.deleted:
            return "destination was deleted"
        if newest.document_id not in self.stored:
            return "not stored any more"
        return None if self._is_stored(newest) else "newer version"


def chunk_of(incoming):
    """Return a chunk as ingest has it behind the classifier."""
    return ClassifiedChunk(
        tenant_id=DEFAULT_TENANT, chunk_id=uuid.uuid4(), documents=incoming, rejections=[]
    )


def document(one, version, seq):
    """Return a version of a document; its text names it."""
    moment = accepted_at(seq)
    return IncomingDocument(
        tenant_id=DEFAULT_TENANT,
        id=one,
        version=version,
        seq=seq,
        content=f"text {seq}",
        topics=None,
        keys=None,
        delivery=None,
        priority=None,
        attributes=None,
        created_at=moment,
        updated_at=moment,
        prediction=None,
    )


def _result(key, state, attempts):
    now = datetime.now(UTC)
    return DeliveryResult(
        key=key,
        state=DeliveryState(state),
        attempts=attempts,
        due_at=now if state == "pending" else None,
        status=200,
        error=None,
        finished_at=now,
    )
