"""Finding deliveries, grouping their errors, and planning ended ones anew."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from app.domain.delivery_ids import DeliveryPlace
from app.domain.documents import DEFAULT_TENANT, accepted_at
from app.domain.operational_events import OperationalEventType
from app.storage import (
    counters,
    delivery_errors,
    delivery_search,
    documents,
    operational_events,
    replays,
)
from app.storage.delivery_search import DeliveryFilter
from app.storage.due import read_due
from app.storage.engine import transaction
from app.storage.replays import replayable


@pytest.fixture
def set_row(engine):
    """Change what stands in a delivery."""

    def run(document, target=None, **values):
        values.setdefault("attempted_at", datetime.now(UTC))
        if values.get("state") in {"delivered", "failed", "superseded", "cancelled"}:
            values.setdefault("ended_at", datetime.now(UTC) - timedelta(seconds=1))
        changes = ", ".join(f"{name} = :{name}" for name in values)
        with transaction(engine) as connection:
            connection.execute(
                text(
                    f"UPDATE deliveries SET {changes} WHERE document_id = :id AND seq = :seq"  # noqa: S608  (names of the test)
                    " AND (CAST(:target AS uuid) IS NULL OR destination_id = :target)"
                ),
                {
                    **values,
                    "id": document.id,
                    "seq": document.seq,
                    "target": target and target.id,
                },
            )

    return run


@pytest.fixture
def find(engine):
    def run(limit=100, after=None, **wanted):
        with transaction(engine) as connection:
            return delivery_search.find(
                connection, DEFAULT_TENANT, DeliveryFilter(**wanted), limit=limit, after=after
            )

    return run


@pytest.fixture
def four(make_document, make_target, store, set_row):
    """Four documents for two destinations, in order: failed, retrying, delivered, fresh."""
    a, b = make_target("a"), make_target("b")
    made = [make_document(str(n)) for n in range(4)]
    store(*made, to=(a, b))
    for target in (a, b):
        set_row(made[0], target, state="failed", attempts=9, last_status=503, last_error="HTTP 503")
        set_row(made[1], target, attempts=2, last_error="no answer in 15 s")
        set_row(made[2], target, state="delivered", attempts=1, last_status=200)
    return made, a, b


def numbers(found, made):
    seqs = [one.seq for one in made]
    return [seqs.index(one.seq) for one in found.items]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((), [3, 3, 2, 2, 1, 1, 0, 0]),
        (("undelivered",), [3, 3, 1, 1, 0, 0]),
        (("failed",), [0, 0]),
        (("retrying",), [1, 1]),
        (("pending",), [3, 3, 1, 1]),
        (("retrying", "failed"), [1, 1, 0, 0]),
        (("delivered", "failed"), [2, 2, 0, 0]),
        (("held",), []),
    ],
)
def test_deliveries_are_found_by_state_the_newest_first(four, find, states, expected):
    made, a, _ = four
    assert numbers(find(states=states), made) == expected
    assert numbers(find(states=states, destination_id=a.id), made) == expected[::2]


def test_every_other_condition_narrows_what_is_found(four, find):
    made, _, b = four
    assert numbers(find(document_id=made[1].id), made) == [1, 1]
    assert numbers(find(document_id=made[1].id, seq=made[0].seq), made) == []
    assert numbers(find(status=503), made) == [0, 0]
    assert numbers(find(error="NO ANSWER"), made) == [1, 1]
    assert numbers(find(error="%"), made) == []
    since, until = accepted_at(made[1].seq), accepted_at(made[3].seq)
    assert numbers(find(since=since, until=until, destination_id=b.id), made) == [2, 1]
    assert numbers(find(states=("failed",), since=since), made) == []
    assert numbers(find(ended_before=datetime.now(UTC)), made) == [2, 2, 0, 0]


def test_a_batch_has_its_own(four, find, make_document, store):
    _, a, _ = four
    document, batch_id = make_document("of a batch"), uuid.uuid4()
    store(document, to=(a,), batch_id=batch_id)
    (one,) = find(batch_id=batch_id).items
    assert (one.document_id, one.batch_id, one.destination_key) == (document.id, batch_id, "a")
    assert find(batch_id=uuid.uuid4()).items == []


@pytest.mark.parametrize("states", [(), ("undelivered",)])
@pytest.mark.parametrize("limit", [1, 3, 8])
@pytest.mark.usefixtures("four")
def test_pages_hold_all_of_them_once(find, states, limit):
    expected = [one.place for one in find(states=states).items]
    seen, after = [], None
    while True:
        page = find(limit=limit, after=after, states=states)
        seen += [one.place for one in page.items]
        assert len(page.items) <= limit
        if page.next is None:
            break
        after = page.next
    assert seen == expected


def test_a_walk_ends_in_time_and_is_taken_up_again(four, find, monkeypatch):
    monkeypatch.setattr(delivery_search, "_FIRST_WALK", 1)
    monkeypatch.setattr(delivery_search, "_LONG_WALK", 2)
    made, *_ = four
    pages, after = [], None
    while True:
        page = find(limit=1, after=after, status=503)
        pages.append(numbers(page, made))
        if page.next is None:
            break
        after = page.next
    assert [one for page in pages for one in page] == [0, 0]
    assert [] in pages


def test_errors_come_in_groups(engine, four, make_document, store, set_row):
    _, a, b = four
    more = [make_document(str(n)) for n in range(3)]
    store(*more, to=(a,))
    for number, one in enumerate(more):
        set_row(one, state="failed", last_status=503, last_error=f"HTTP 503: request {number}")

    def groups(**options):
        with transaction(engine) as connection:
            return delivery_errors.groups(connection, DEFAULT_TENANT, **options)

    found = groups()
    first = found.items[0]
    assert (first.destination_key, first.status, first.error) == ("a", 503, "HTTP 503")
    assert (first.failed, first.retrying, first.last_error) == (4, 0, "HTTP 503: request 2")
    assert {(one.destination_key, one.error) for one in found.items} == {
        ("a", "HTTP 503"),
        ("b", "HTTP 503"),
        ("a", "no answer in 15 s"),
        ("b", "no answer in 15 s"),
    }
    assert found.complete
    assert [one.destination_id for one in groups(destination_id=b.id).items] == [b.id, b.id]
    assert [one.failed for one in groups(first_seq=more[0].seq).items] == [3]
    bounded = groups(most=2)
    assert (sum(one.failed for one in bounded.items), bounded.complete) == (2, False)


# Replays


@pytest.fixture
def replay(engine):
    """Run a replay to its end, in pieces; return it and the number of pieces."""

    def run(piece=100, **by):
        with transaction(engine) as connection:
            replays.create(connection, DEFAULT_TENANT, uuid.uuid4(), DeliveryFilter(**by))
        pieces = 0
        while True:
            with transaction(engine) as connection:
                job = replays.advance(connection, DEFAULT_TENANT, piece=piece)
            assert job is not None
            pieces += 1
            if job.finished_at is not None:
                return job, pieces

    return run


def due(engine, target):
    with transaction(engine) as connection:
        return read_due(
            connection,
            DEFAULT_TENANT,
            target.id,
            max_rows=100,
            max_bytes=1 << 20,
        ).fresh


def test_what_failed_is_planned_anew_under_another_generation(engine, four, find, replay):
    made, a, _ = four
    job, _ = replay(states=("failed",), destination_id=a.id)
    assert (job.planned, job.skipped) == (1, 0)
    old, new = sorted(find(document_id=made[0].id, destination_id=a.id).items, key=str)[::-1]
    assert {(one.state, one.generation) for one in (old, new)} == {("failed", 0), ("pending", 1)}
    assert made[0].seq in {one.key.seq for one in due(engine, a) if one.key.generation == 1}
    with transaction(engine) as connection:
        assert counters.totals(connection, DEFAULT_TENANT)["deliveries.planned"] == 8 + 1
    again, _ = replay(states=("failed",), destination_id=a.id)
    assert (again.planned, again.skipped) == (0, 1)


def test_many_are_planned_piece_by_piece_and_each_once(
    engine, make_document, make_target, store, set_row, replay
):
    target = make_target()
    made = [make_document(str(n)) for n in range(10)]
    store(*made, to=(target,))
    for one in made:
        set_row(one, state="failed")
    job, pieces = replay(piece=3, states=("failed",))
    assert (job.planned, job.skipped, pieces) == (10, 0, 4)
    assert [one.key.generation for one in due(engine, target)] == [1] * 10


def test_what_fails_behind_the_call_for_a_replay_is_none_of_it(
    engine, four, make_document, store, set_row
):
    _, a, _ = four
    with transaction(engine) as connection:
        by = DeliveryFilter(states=("failed",), destination_id=a.id)
        replays.create(connection, DEFAULT_TENANT, uuid.uuid4(), by)
    late = make_document("late")
    store(late, to=(a,))
    set_row(late, state="failed", ended_at=datetime.now(UTC) + timedelta(seconds=1))
    with transaction(engine) as connection:
        job = replays.advance(connection, DEFAULT_TENANT)
    assert (job.planned, job.skipped) == (1, 0)


def test_what_has_gone_is_skipped(engine, four, replay, make_document, store):
    made, a, _ = four
    newer = make_document("newer", id=made[0].id)
    store(newer, to=())
    job, _ = replay(states=("failed",))
    assert (job.planned, job.skipped) == (0, 2)
    with transaction(engine) as connection:
        documents.delete(connection, DEFAULT_TENANT, made[2].id)
    job, _ = replay(states=("delivered",), destination_id=a.id)
    assert (job.planned, job.skipped) == (0, 1)


@pytest.mark.usefixtures("four")
def test_one_that_somebody_else_is_at_is_passed_over(engine):
    with transaction(engine) as connection:
        by = DeliveryFilter(states=("failed",))
        replays.create(connection, DEFAULT_TENANT, uuid.uuid4(), by)
    with transaction(engine) as first:
        assert replays.advance(first, DEFAULT_TENANT) is not None
        with transaction(engine) as second:
            assert replays.advance(second, DEFAULT_TENANT) is None
    with transaction(engine) as connection:
        assert replays.advance(connection, DEFAULT_TENANT) is None


def test_two_who_plan_the_same_at_once_plan_it_once(engine, four):
    made, a, _ = four
    place = DeliveryPlace(made[0].id, made[0].seq, a.id, 0)
    with transaction(engine) as first:
        assert len(replays.plan(first, DEFAULT_TENANT, [place])) == 1
    with transaction(engine) as second:
        assert replays.plan(second, DEFAULT_TENANT, [place]) == []
        assert replayable(second, DEFAULT_TENANT, [place]) == []


def test_an_event_is_replayed_like_a_document(engine, make_target, find, replay):
    subject, subscriber = make_target("subject"), make_target("subscriber", events=["*"])
    with transaction(engine) as connection:
        operational_events.emit(
            connection,
            DEFAULT_TENANT,
            OperationalEventType.DESTINATION_FAILING,
            subject.id,
            {},
        )
        connection.execute(
            text("UPDATE deliveries SET state = 'failed', ended_at = now() - interval '1 s'")
        )
    job, _ = replay(states=("failed",))
    assert job.planned == 1
    (one,) = due(engine, subscriber)
    assert (one.event_type, one.key.generation) == ("destination.failing", 1)
    assert len(find(destination_id=subscriber.id).items) == 2
