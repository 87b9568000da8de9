"""Reading what is due, recording what came of it, leases and ticks."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from app.domain.deliveries import DeliveryState
from app.domain.documents import DEFAULT_TENANT
from app.domain.errors import DestinationKeyTaken
from app.storage import deliveries, destinations, leases, ticks
from app.storage.deliveries import DeliveryResult
from app.storage.destinations import DestinationCache
from app.storage.due import Position, Selection, has_due, read_due
from app.storage.engine import transaction

NOW = datetime.now(UTC)


def read(engine, target, *, max_rows=100, max_bytes=1 << 20, **selection):
    with transaction(engine) as connection:
        return read_due(
            connection,
            DEFAULT_TENANT,
            target.id,
            selection=Selection(**selection),
            max_rows=max_rows,
            max_bytes=max_bytes,
        )


def take(engine, target, holder="h1", ttl=60.0):
    with transaction(engine) as connection:
        return leases.acquire(connection, DEFAULT_TENANT, target.id, holder, ttl)


def result(key, state, **fields):
    values = {
        "attempts": 1,
        "due_at": None,
        "status": 200,
        "error": None,
        "finished_at": datetime.now(UTC),
    }
    return DeliveryResult(key=key, state=state, **{**values, **fields})


def record(engine, lease, *results):
    with transaction(engine) as connection:
        return deliveries.record(connection, lease, results)


def state_of(engine, key):
    with transaction(engine) as connection:
        return connection.execute(
            text("SELECT state FROM deliveries WHERE document_id = :id AND seq = :seq"),
            {"id": key.document_id, "seq": key.seq},
        ).scalar_one()


def test_fresh_deliveries_come_in_the_order_of_acceptance(
    engine, make_document, make_target, store
):
    target = make_target()
    chunk = [make_document(str(n)) for n in range(5)]
    store(*chunk, to=(target,))
    page = read(engine, target)
    assert [one.content for one in page.fresh] == ["0", "1", "2", "3", "4"]
    assert page.retries == []
    behind = read(engine, target, after=Position(0, chunk[2].seq))
    assert [one.content for one in behind.fresh] == ["3", "4"]


def test_a_page_is_bounded_by_rows_and_by_bytes_but_never_empty(
    engine, make_document, make_target, store
):
    target = make_target()
    store(*(make_document("x" * 1000) for _ in range(6)), to=(target,))
    assert len(read(engine, target, max_rows=4).fresh) == 4
    assert len(read(engine, target, max_bytes=2500).fresh) == 3
    assert len(read(engine, target, max_bytes=1).fresh) == 1


def test_retries_wait_until_they_are_due_and_share_the_page_with_fresh_ones(
    engine, make_document, make_target, store
):
    target = make_target()
    store(*(make_document(f"retry {n}") for n in range(4)), to=(target,))
    lease = take(engine, target)
    keys = [one.key for one in read(engine, target).fresh]
    past, future = NOW - timedelta(seconds=5), NOW + timedelta(hours=1)
    record(
        engine,
        lease,
        *(result(key, DeliveryState.PENDING, due_at=past) for key in keys[:3]),
        result(keys[3], DeliveryState.PENDING, due_at=future),
    )
    store(*(make_document(f"fresh {n}") for n in range(4)), to=(target,))
    page = read(engine, target, max_rows=4)
    assert len(page.fresh) == 2
    assert len(page.retries) == 2
    wide = read(engine, target, max_rows=100)
    assert (len(wide.fresh), len(wide.retries)) == (4, 3)


@pytest.mark.parametrize("queue", ["fifo", "lifo", "priority"])
def test_what_is_known_is_left_out_and_takes_no_room_on_the_page(
    engine, make_document, make_target, store, queue
):
    target = make_target()
    store(*(make_document() for _ in range(6)), to=(target,))
    keys = [one.key for one in read(engine, target, queue=queue).fresh]
    past = NOW - timedelta(seconds=5)
    again = [result(key, DeliveryState.PENDING, due_at=past) for key in (keys[0], keys[2])]
    record(engine, take(engine, target), *again)
    known = [keys[0].seq, keys[1].seq]
    page = read(engine, target, queue=queue, known=known, max_rows=4)
    assert [one.key for one in page.fresh] == keys[3:]
    assert [one.key for one in page.retries] == [keys[2]]


def test_a_disabled_or_deleted_destination_has_nothing_to_read(
    engine, make_document, make_target, store
):
    target = make_target()
    store(make_document(), to=(target,))
    with transaction(engine) as connection:
        destinations.disable(connection, DEFAULT_TENANT, target.id, "410")
    assert read(engine, target).fresh == []


def test_a_lease_has_one_holder_and_a_rising_epoch(engine, make_target):
    target = make_target()
    first = take(engine, target)
    assert take(engine, target, "h2") is None
    with transaction(engine) as connection:
        leases.release(connection, first)
    second = take(engine, target, "h2")
    assert (second.epoch, second.lost_leases) == (first.epoch + 1, 0)
    with transaction(engine) as connection:
        assert leases.renew(connection, second, 60.0)
        assert not leases.renew(connection, first, 60.0)


def test_leases_that_expire_are_counted_as_lost_until_one_ends_well(engine, make_target):
    target = make_target()
    take(engine, target, ttl=-1)
    assert take(engine, target, ttl=-1).lost_leases == 1
    third = take(engine, target)
    assert third.lost_leases == 2
    with transaction(engine) as connection:
        leases.release(connection, third)
    assert take(engine, target).lost_leases == 0


def test_an_old_epoch_records_successes_and_nothing_else(engine, make_document, make_target, store):
    target = make_target()
    store(make_document(), make_document(), to=(target,))
    old = take(engine, target, ttl=-1)
    new = take(engine, target, "h2")
    failed, delivered = (one.key for one in read(engine, target).fresh)
    counts = record(
        engine,
        old,
        result(failed, DeliveryState.FAILED, status=500),
        result(delivered, DeliveryState.DELIVERED),
    )
    assert dict(counts) == {DeliveryState.DELIVERED: 1}
    assert state_of(engine, failed) == "pending"
    record(engine, new, result(failed, DeliveryState.FAILED, status=500))
    assert state_of(engine, failed) == "failed"


def test_a_success_is_recorded_even_when_the_version_was_replaced_meanwhile(
    engine, make_document, make_target, store
):
    target, one = make_target(), uuid.uuid4()
    store(make_document(id=one), to=(target,))
    lease = take(engine, target)
    (first,) = read(engine, target).fresh
    store(make_document(id=one), to=(target,))
    assert state_of(engine, first.key) == "superseded"
    record(engine, lease, result(first.key, DeliveryState.DELIVERED))
    assert state_of(engine, first.key) == "delivered"


def test_a_failure_of_a_replaced_version_is_superseded(engine, make_document, make_target, store):
    target, one = make_target(), uuid.uuid4()
    store(make_document(id=one), to=(target,))
    lease = take(engine, target)
    (first,) = read(engine, target).fresh
    # As when the newer version was stored but its supersede has not come to this row.
    store(make_document(id=one))
    with transaction(engine) as connection:
        connection.execute(text("UPDATE deliveries SET state = 'pending'"))
    counts = record(engine, lease, result(first.key, DeliveryState.PENDING, due_at=NOW))
    assert dict(counts) == {DeliveryState.SUPERSEDED: 1}


def test_a_delivered_row_never_changes_again(engine, make_document, make_target, store):
    target = make_target()
    store(make_document(), to=(target,))
    lease = take(engine, target)
    (one,) = read(engine, target).fresh
    record(engine, lease, result(one.key, DeliveryState.DELIVERED))
    assert not record(engine, lease, result(one.key, DeliveryState.FAILED))
    assert state_of(engine, one.key) == "delivered"


def test_attempts_can_be_marked_before_they_are_made(engine, make_document, make_target, store):
    target = make_target()
    store(make_document(), to=(target,))
    lease = take(engine, target)
    (one,) = read(engine, target).fresh
    with transaction(engine) as connection:
        deliveries.mark_attempts(connection, lease, [one.key])
    assert [again.attempts for again in read(engine, target).retries] == [1]


def test_recording_and_superseding_the_same_rows_do_not_deadlock(
    engine, make_document, make_target, store
):
    target = make_target()
    ids = [uuid.uuid4() for _ in range(40)]
    store(*(make_document(id=one) for one in ids), to=(target,))
    lease = take(engine, target)
    failures = []

    def guarded(work):
        try:
            for _ in range(10):
                work()
        except Exception as error:  # noqa: BLE001  (whatever it is, the test fails with it)
            failures.append(error)

    def supersede():
        store(*(make_document(id=one) for one in reversed(ids)), to=(target,))

    def write_results():
        page = read(engine, target)
        record(
            engine,
            lease,
            *(result(one.key, DeliveryState.PENDING, due_at=NOW) for one in reversed(page.fresh)),
        )

    threads = [
        threading.Thread(target=guarded, args=(work,))
        for work in (supersede, write_results, supersede, write_results)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_result_that_supersede_had_to_wait_for_does_not_hide_the_row(
    engine, make_document, make_target, store
):
    target = make_target()
    old = make_document()
    store(old, to=(target,))
    lease = take(engine, target)
    (first,) = read(engine, target).fresh
    newer = make_document(id=old.id)
    with transaction(engine) as connection:
        deliveries.record(connection, lease, [result(first.key, DeliveryState.PENDING, due_at=NOW)])
        thread = threading.Thread(target=store, args=(newer,), kwargs={"to": (target,)})
        thread.start()
        wait_until_somebody_waits_for_a_lock(engine)
    thread.join()
    assert state_of(engine, first.key) == "superseded"
    assert [one.key.seq for one in read(engine, target).fresh] == [newer.seq]


def wait_until_somebody_waits_for_a_lock(engine):
    for _ in range(1000):
        with transaction(engine) as connection:
            if connection.execute(text("SELECT 1 FROM pg_locks WHERE NOT granted")).first():
                return
    pytest.fail("nobody waited")


def test_open_deliveries_of_a_deleted_destination_are_cancelled_in_batches(
    engine, make_document, make_target, store
):
    target = make_target()
    store(*(make_document() for _ in range(5)), to=(target,))
    # Two wait to be tried again.
    tried = [one.key for one in read(engine, target).fresh[:2]]
    retry = datetime.now(UTC) + timedelta(hours=1)
    lease = take(engine, target)
    record(engine, lease, *(result(key, DeliveryState.PENDING, due_at=retry) for key in tried))
    with transaction(engine) as connection:
        assert destinations.soft_delete(connection, DEFAULT_TENANT, target.id)
        assert not destinations.soft_delete(connection, DEFAULT_TENANT, target.id)
    with transaction(engine) as connection:
        assert deliveries.cancel_of_deleted_destinations(connection, DEFAULT_TENANT, limit=3) == 3
        assert deliveries.cancel_of_deleted_destinations(connection, DEFAULT_TENANT, limit=3) == 2
        assert deliveries.cancel_of_deleted_destinations(connection, DEFAULT_TENANT, limit=3) == 0


def test_a_retry_is_due_at_its_time_and_not_before(engine, make_document, make_target, store):
    target = make_target()
    store(make_document(), to=(target,))
    lease = take(engine, target)
    (one,) = read(engine, target).fresh

    def due_after(moment):
        record(engine, lease, result(one.key, DeliveryState.PENDING, due_at=moment))
        with transaction(engine) as connection:
            leases.release(connection, lease)
            waiting = ticks.waiting_destinations(connection, DEFAULT_TENANT)
            return has_due(connection, DEFAULT_TENANT, target.id), waiting

    assert due_after(datetime.now(UTC) + timedelta(hours=1)) == (False, [])
    assert due_after(datetime.now(UTC) - timedelta(seconds=1)) == (True, [target.id])


def test_a_tick_belongs_to_one_caller_per_period(engine):
    turns = []

    def ask():
        with transaction(engine) as connection:
            turns.append(ticks.take(connection, DEFAULT_TENANT, "sweep", 60.0))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turns) == [False] * 5 + [True]


def test_the_sweeper_finds_destinations_with_something_due_that_nobody_holds(
    engine, make_document, make_target, store
):
    idle, waiting, held = make_target("idle"), make_target("waiting"), make_target("held")
    store(make_document(), to=(waiting, held))
    assert idle.enabled
    take(engine, held)
    with transaction(engine) as connection:
        assert ticks.waiting_destinations(connection, DEFAULT_TENANT) == [waiting.id]


def test_a_key_can_be_taken_again_only_after_its_destination_is_deleted(engine, make_target):
    first = make_target("a")
    with pytest.raises(DestinationKeyTaken):
        make_target("a")
    with transaction(engine) as connection:
        destinations.soft_delete(connection, DEFAULT_TENANT, first.id)
    assert make_target("a").id != first.id


def test_the_cache_follows_every_committed_change(engine, make_target):
    cache = DestinationCache()

    def enabled():
        with transaction(engine) as connection:
            return [one.key for one in cache.table(connection, DEFAULT_TENANT).destinations]

    assert enabled() == []
    first = make_target("a")
    assert enabled() == ["a"]
    make_target("b")
    with transaction(engine) as connection:
        destinations.disable(connection, DEFAULT_TENANT, first.id, "gone")
    assert enabled() == ["b"]


def test_a_destination_reads_back_as_it_was_written(engine, make_target):
    target = make_target("a", description="for people", timeout_seconds=3)
    with transaction(engine) as connection:
        found = destinations.get(connection, DEFAULT_TENANT, target.id)
        assert destinations.list_page(connection, DEFAULT_TENANT, limit=10) == [found]
    assert replace(found, created_at=NOW, updated_at=NOW) == replace(
        target, created_at=NOW, updated_at=NOW
    )
