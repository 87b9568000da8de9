"""Deliveries live as drawn in ``app/domain/deliveries.py``, in whatever order things happen.

hypothesis draws the order; a model in Python says what each row must be, and real Postgres is asked
through ``app.storage`` and ``app.services`` after every step.
"""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, text

from app.domain.delivery_ids import DeliveryPlace
from app.domain.destinations import DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT, OrderKey, accepted_at
from app.domain.errors import DeliveryNotReplayable
from app.domain.routing import Route
from app.services.deliveries import replay_delivery
from app.services.destinations import pause_destination, resume_destination
from app.storage import counters, deliveries, destinations, documents, holds, leases
from app.storage.deliveries import DeliveryKey, DeliveryResult, DeliveryState
from app.storage.documents import IncomingDocument
from app.storage.engine import make_engine, transaction
from app.storage.ingest import ClassifiedChunk, apply

OPEN = ("pending", "held")
ENDED = ("delivered", "failed", "superseded", "cancelled")
STEPS = 25
_numbers = itertools.count(1)


class Deliveries(RuleBasedStateMachine):
    """Two documents, two destinations, and what may happen to them."""

    engine: ClassVar[Engine]

    def __init__(self):
        super().__init__()
        self.rows = {}
        self.stored = {}
        self.tombstones = {}
        self.used = set()
        self.chunks = []
        self.leases = {}
        self.paused = set()
        self.deleted = set()
        self.seq = 1_700_000_000_000_000 + 1_000_000 * next(_numbers)

    @initialize()
    def begin(self):
        self.ids = [uuid.uuid4() for _ in range(2)]
        self.targets = []
        for _ in range(2):
            given = DestinationInput(key=uuid.uuid4().hex, url="http://example.com/hook")
            made = make_destination(DEFAULT_TENANT, given, now=datetime.now(UTC))
            with transaction(self.engine) as connection:
                destinations.create(connection, made)
            self.targets.append(made.id)

    # What comes in

    @rule(
        versions=st.lists(
            st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(-5, 5)),
            min_size=1,
            max_size=3,
        ),
        to=st.sets(st.integers(0, 1)),
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
            incoming.append(_document(self.ids[which], version, seq))
        targets = [self.targets[n] for n in sorted(to) if self.targets[n] not in self.deleted]
        chunk = ClassifiedChunk(
            tenant_id=DEFAULT_TENANT,
            chunk_id=uuid.uuid4(),
            documents=incoming,
            rejections=[],
        )
        self.chunks.append((chunk, targets))
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

    @precondition(lambda self: self.chunks)
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
            self.tombstones[one] = self.stored.pop(one)
            self._end_open(lambda row: row.document_id == one, "cancelled")

    # What goes out

    @rule(which=st.integers(0, 1))
    def take_lease(self, which):
        """A new epoch; holders of older ones do not know yet."""
        target = self.targets[which]
        with transaction(self.engine) as connection:
            lease = leases.acquire(connection, DEFAULT_TENANT, target, "h", -1.0)
        if lease is not None:
            self.leases.setdefault(target, []).append(lease)

    @precondition(lambda self: self.rows and self.leases)
    @rule(
        data=st.data(),
        state=st.sampled_from(["delivered", "failed", "pending"]),
        current=st.booleans(),
    )
    def record(self, data, state, current):
        key = data.draw(st.sampled_from(sorted(self.rows)))
        held = self.leases.get(key.destination_id)
        if not held:
            return
        lease = held[-1] if current else held[0]
        with transaction(self.engine) as connection:
            deliveries.record(connection, lease, [_result(key, state)])
        before = self.rows[key]
        if before == "delivered":
            return
        if state == "delivered":
            self.rows[key] = "delivered"
        elif before in OPEN and lease is held[-1]:
            if self.stored[key.document_id].seq != key.seq:
                self.rows[key] = "superseded"
            elif state == "failed":
                self.rows[key] = "failed"

    @precondition(lambda self: self.rows and self.leases)
    @rule(data=st.data())
    def mark(self, data):
        key = data.draw(st.sampled_from(sorted(self.rows)))
        for lease in self.leases.get(key.destination_id, [])[-1:]:
            with transaction(self.engine) as connection:
                deliveries.mark_attempts(connection, lease, [key])

    @rule(which=st.integers(0, 1), paused=st.booleans())
    def pause(self, which, paused):
        target = self.targets[which]
        if target in self.deleted:
            return
        change = pause_destination if paused else resume_destination
        change(self.engine, DEFAULT_TENANT, target)
        (self.paused.add if paused else self.paused.discard)(target)

    @rule()
    def tick(self):
        with transaction(self.engine) as connection:
            holds.hold(connection, DEFAULT_TENANT)
            holds.resume(connection, DEFAULT_TENANT)
            deliveries.cancel_of_deleted_destinations(connection, DEFAULT_TENANT)
            counters.fold(connection, DEFAULT_TENANT)
        for key, state in self.rows.items():
            if state in OPEN:
                if key.destination_id in self.deleted:
                    self.rows[key] = "cancelled"
                else:
                    paused = key.destination_id in self.paused
                    self.rows[key] = "held" if paused else "pending"

    @precondition(lambda self: len(self.targets) - len(self.deleted) > 1)
    @rule(which=st.integers(0, 1))
    def delete_destination(self, which):
        with transaction(self.engine) as connection:
            destinations.soft_delete(connection, DEFAULT_TENANT, self.targets[which])
        self.deleted.add(self.targets[which])

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def replay(self, data):
        key = data.draw(st.sampled_from(sorted(self.rows)))
        family = [one for one in self.rows if one[:4] == key[:4]]
        newest = max(family)
        stored = self.stored.get(key.document_id)
        may = (
            self.rows[newest] not in OPEN
            and key.destination_id not in self.deleted
            and stored is not None
            and stored.seq == key.seq
        )
        place = DeliveryPlace(*key[1:])
        if may:
            replay_delivery(self.engine, DEFAULT_TENANT, place)
            self._plan(newest._replace(generation=newest.generation + 1))
        else:
            with pytest.raises(DeliveryNotReplayable):
                replay_delivery(self.engine, DEFAULT_TENANT, place)

    # What must hold

    @invariant()
    def rows_are_as_the_model_says(self):
        if not getattr(self, "ids", None):
            return
        with transaction(self.engine) as connection:
            found = {
                DeliveryKey(DEFAULT_TENANT, *row[:4]): row.state
                for row in connection.execute(
                    text(
                        "SELECT document_id, seq, destination_id, generation, state"
                        " FROM deliveries WHERE document_id = ANY(:ids) AND event_type IS NULL"
                    ),
                    {"ids": self.ids},
                )
            }
            newest = documents.order_keys(connection, DEFAULT_TENANT, self.ids)
        assert found == self.rows
        assert {one: tuple(key) for one, key in newest.items()} == {
            one: tuple(key) for one, key in self.stored.items()
        }
        still_open = [key for key, state in found.items() if state in OPEN]
        families = Counter(key[:4] for key in still_open)
        assert not families or max(families.values()) == 1
        assert all(self.stored[key.document_id].seq == key.seq for key in still_open)

    def teardown(self):
        """The counters say what the rows do, those of all runs so far."""
        with transaction(self.engine) as connection:
            totals = counters.totals(connection, DEFAULT_TENANT)
            rows = connection.execute(
                text("SELECT state, count(*) AS amount FROM deliveries GROUP BY state")
            )
            states = {row.state: row.amount for row in rows}
        counted = {
            state: amount for state in ENDED if (amount := totals.get(f"deliveries.{state}", 0))
        }
        assert counted == {s: amount for s, amount in states.items() if s not in OPEN}
        assert totals.get("deliveries.planned", 0) == sum(states.values())

    def _apply(self, chunk, targets):
        with transaction(self.engine) as connection:
            apply(
                connection,
                DEFAULT_TENANT,
                [chunk],
                lambda _: [Route(one, "broadcast") for one in targets],
            )

    def _plan(self, key):
        self.rows[key] = "pending"

    def _end_open(self, which, state):
        for key, before in self.rows.items():
            if before in OPEN and which(key):
                self.rows[key] = state


def _document(one, version, seq):
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


def _result(key, state):
    now = datetime.now(UTC)
    return DeliveryResult(
        key=key,
        state=DeliveryState(state),
        attempts=1,
        due_at=now if state == "pending" else None,
        status=200,
        error=None,
        finished_at=now,
    )


@pytest.mark.timeout(1800)
def test_deliveries_live_as_drawn(database_url, fuzz):
    engine = make_engine(database_url, application_name="test")
    made = type("DeliveriesHere", (Deliveries,), {"engine": engine})
    rules = settings(
        max_examples=max(20, fuzz.cases // 20),
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(fuzz.seed)(made), settings=rules)
    engine.dispose()


@pytest.mark.timeout(600)
def test_versions_in_any_order_end_at_the_newest(database_url, fuzz):
    engine = make_engine(database_url, application_name="test")
    numbers = itertools.count(1_800_000_000_000_000, 100)

    @seed(fuzz.seed)
    @settings(max_examples=max(20, fuzz.cases // 20), deadline=None, database=None)
    @given(
        st.lists(
            st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=5),
            min_size=1,
            max_size=5,
        ),
        st.randoms(use_true_random=False),
    )
    def check(chunks, draw):
        ids = [uuid.uuid4() for _ in range(3)]
        seqs = iter(range(base := next(numbers), base + 100))
        made = [[_document(ids[n], v, next(seqs)) for n, v in chunk] for chunk in chunks]
        draw.shuffle(made)
        for part in made:
            with transaction(engine) as connection:
                chunk = ClassifiedChunk(
                    tenant_id=DEFAULT_TENANT, chunk_id=uuid.uuid4(), documents=part, rejections=[]
                )
                apply(connection, DEFAULT_TENANT, [chunk], lambda _: [])
        newest = {}
        for one in itertools.chain(*made):
            newest[one.id] = max(newest.get(one.id, OrderKey(-1, -1)), one.order_key)
        with transaction(engine) as connection:
            for one, key in newest.items():
                row = documents.get(connection, DEFAULT_TENANT, one)
                assert (row.version, row.seq, row.content) == (*key, f"text {key.seq}")

    check()
    engine.dispose()
