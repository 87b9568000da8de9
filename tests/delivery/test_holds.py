"""What pausing, disabling and deleting a destination do to its deliveries."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.documents import DEFAULT_TENANT
from app.storage import deliveries, destinations, documents, holds
from app.storage.engine import transaction
from tests.delivery.conftest import wait_until


def change(yard, destination, **fields):
    with transaction(yard.engine) as connection:
        known = destinations.get(connection, DEFAULT_TENANT, destination.id, lock=True)
        destinations.update(connection, replace(known, **fields))


def move(yard, which, **options):
    with transaction(yard.engine) as connection:
        return which(connection, DEFAULT_TENANT, **options)


PAUSED = {"paused_at": datetime.now(UTC)}
DISABLED = {"enabled": False}
ACTIVE = {"paused_at": None, "enabled": True}


@pytest.mark.parametrize("fields", [PAUSED, DISABLED])
def test_what_is_open_is_held_and_taken_up_again(yard, delivery, receiver, fields):
    destination, other = yard.destination(receiver.url), yard.destination(receiver.url, "other")
    tried = yard.one(destination)
    later = datetime.now(UTC) + timedelta(hours=1)
    yard.execute("UPDATE deliveries SET attempts = 3, due_at = :later", later=later)
    fresh, bystander = yard.one(destination), yard.one(other)
    change(yard, destination, **fields)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert receiver.received == []
    assert move(yard, holds.hold) == 2
    assert move(yard, holds.hold) == move(yard, holds.resume) == 0
    assert [yard.row(one).state for one in (tried, fresh, bystander)] == ["held"] * 2 + ["pending"]
    change(yard, destination, **ACTIVE)
    assert move(yard, holds.resume) == 2
    assert yard.row(tried).due_at == later  # its rung has not come yet
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert (yard.row(fresh).state, yard.row(tried).state) == ("delivered", "pending")
    assert yard.row(tried).attempts == 3


def test_a_pause_is_noticed_while_rows_are_queued(yard, make_delivery, receiver):
    delivery = make_delivery(lease_seconds=1.0)
    release = receiver.hangs()
    destination = yard.destination(receiver.url, concurrency={"min": 2, "max": 2})
    for _ in range(20):
        yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.in_flight == 2)
    change(yard, destination, **PAUSED)
    move(yard, holds.hold)
    known_until = yard.runtime(destination).lease_expires_at
    # Every renewal reads the configuration; the second one began behind the change.
    for _ in range(2):
        wait_until(lambda seen=known_until: yard.runtime(destination).lease_expires_at > seen)
        known_until = yard.runtime(destination).lease_expires_at
    release()
    delivery.wait_until_idle()
    assert yard.states() == {"delivered": 2, "held": 18}
    assert len(receiver.received) == 2


def test_a_failure_in_flight_at_the_pause_counts_and_stays_held(yard, delivery, receiver):
    release = receiver.hangs()
    destination = yard.destination(receiver.url)
    document = yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.in_flight == 1)
    change(yard, destination, **PAUSED)
    move(yard, holds.hold)
    release(500)
    delivery.wait_until_idle()
    row = yard.row(document)
    assert (row.state, row.attempts, row.last_status, row.ended_at) == ("held", 1, 500, None)


def test_holding_and_resuming_go_in_pieces(yard, receiver):
    destination = yard.destination(receiver.url)
    yard.store(*[yard.document() for _ in range(25)], to=destination)
    change(yard, destination, **PAUSED)
    assert [move(yard, holds.hold, limit=10) for _ in range(4)] == [10, 10, 5, 0]
    change(yard, destination, **ACTIVE)
    assert [move(yard, holds.resume, limit=10) for _ in range(4)] == [10, 10, 5, 0]
    assert yard.states() == {"pending": 25}


def test_the_age_of_what_was_held_begins_anew(yard, delivery, receiver):
    receiver.answers(500)
    destination = yard.destination(receiver.url)
    document, old = yard.one(destination), yard.one(destination)
    yard.execute("UPDATE deliveries SET created_at = created_at - interval '30 days'")
    change(yard, destination, **PAUSED)
    move(yard, holds.hold)
    change(yard, destination, **ACTIVE)
    move(yard, holds.resume)
    yard.execute("UPDATE deliveries SET resumed_at = NULL WHERE seq = :seq", seq=old.seq)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert (yard.row(document).state, yard.row(old).state) == ("pending", "failed")


def test_what_is_held_is_superseded_and_cancelled_like_what_is_pending(yard, receiver):
    destination, gone = yard.destination(receiver.url), yard.destination(receiver.url, "gone")
    first, removed, dropped = yard.one(destination), yard.one(destination), yard.one(gone)
    for one in (destination, gone):
        change(yard, one, **PAUSED)
    move(yard, holds.hold)
    yard.one(destination, id=first.id)
    with transaction(yard.engine) as connection:
        documents.delete(connection, DEFAULT_TENANT, removed.id)
        destinations.soft_delete(connection, DEFAULT_TENANT, gone.id)
        deliveries.cancel_of_deleted_destinations(connection, DEFAULT_TENANT)
    states = [yard.row(one).state for one in (first, removed, dropped)]
    assert states == ["superseded", "cancelled", "cancelled"]
    # A deleted destination holds nothing, whatever it was before.
    assert move(yard, holds.hold) == 1


def test_a_destination_retries_by_its_own_schedule(yard, delivery, receiver):
    receiver.answers(500)
    destination = yard.destination(receiver.url, retry={"schedule_seconds": [0.1, 0.2]})
    document = yard.one(destination)

    def tried():
        delivery.deliver(destination)
        return yard.row(document).state == "failed"

    wait_until(tried)
    assert (len(receiver.received), yard.row(document).attempts) == (3, 3)


def test_a_destination_gives_up_at_its_own_age(yard, delivery, receiver):
    receiver.answers(500)
    destination = yard.destination(receiver.url, retry={"max_age_seconds": 4})
    document = yard.one(destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert yard.row(document).state == "failed"  # the first rung is at five seconds
