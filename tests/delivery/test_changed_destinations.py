"""A destination is changed while it has deliveries that have begun."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from app.domain.destinations import DestinationChanges
from app.domain.documents import DEFAULT_TENANT
from app.domain.health import Health, HealthRules, Observed
from app.services.destinations import change_destination
from app.storage import destinations, health, leases
from app.storage.engine import transaction
from tests.delivery.conftest import wait_until

LONG_AGO = datetime.now(UTC) - timedelta(days=6)


@pytest.fixture
def delivery(make_delivery):
    return make_delivery(lease_seconds=0.6)


def wait_for_renewal(yard, destination):
    before = yard.runtime(destination).lease_expires_at
    wait_until(lambda: yard.runtime(destination).lease_expires_at != before)


def move(yard, destination, url):
    """Give it another URL; returns when its holder has read that."""
    changes = DestinationChanges(url=url)
    change_destination(yard.engine, DEFAULT_TENANT, destination.id, changes)
    for _ in range(2):
        wait_for_renewal(yard, destination)


def has_failed_for_long(yard, destination):
    """Write down all failures but the one that disables it."""
    with transaction(yard.engine) as connection:
        lease = leases.acquire(connection, DEFAULT_TENANT, destination.id, "me", 0.001)
        row = Health(failing_since=LONG_AGO, failures=19, last_error="HTTP 500", told=True)
        health.note(connection, lease, Observed(row), now=LONG_AGO, rules=HealthRules())
        leases.release(connection, lease)


def is_enabled(yard, destination):
    with transaction(yard.engine) as connection:
        return destinations.get(connection, DEFAULT_TENANT, destination.id).enabled


def test_gone_from_the_url_before_disables_nothing(yard, delivery, receiver, make_receiver):
    elsewhere, release = make_receiver(), receiver.hangs()
    destination = yard.destination(receiver.url)
    yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    move(yard, destination, elsewhere.url)
    release(410)
    wait_until(lambda: yard.rows()[0].attempts)
    delivery.wait_until_idle()
    assert is_enabled(yard, destination)
    document = yard.one(destination)
    delivery.deliver(destination)
    delivery.wait_until_idle()
    assert yard.row(document).state == "delivered"


def test_failures_of_the_url_before_do_not_count_against_the_next(
    yard, delivery, receiver, make_receiver
):
    elsewhere, release = make_receiver(), receiver.hangs()
    elsewhere.answers(500)
    destination = yard.destination(receiver.url)
    with transaction(yard.engine) as connection:
        lease = leases.acquire(connection, DEFAULT_TENANT, destination.id, "me", 0.001)
        row = Health(failing_since=LONG_AGO, failures=18, last_error="HTTP 500", told=True)
        health.note(connection, lease, Observed(row), now=LONG_AGO, rules=HealthRules())
        leases.release(connection, lease)
    yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    move(yard, destination, elsewhere.url)
    yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: elsewhere.received)
    release(500)
    delivery.wait_until_idle()
    runtime = yard.runtime(destination)
    assert is_enabled(yard, destination)
    assert runtime.failures == 1


def test_failures_that_are_written_behind_the_change_do_not_count_either(
    yard, delivery, receiver, make_receiver
):
    """The lease is renewed, or released, in the moment in which the URL changes."""
    elsewhere, release = make_receiver(), receiver.hangs()
    destination = yard.destination(receiver.url)
    has_failed_for_long(yard, destination)
    yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    with transaction(yard.engine) as connection:
        known = destinations.get(connection, DEFAULT_TENANT, destination.id, lock=True)
        destinations.update(connection, replace(known, url=elsewhere.url))
        health.forget(connection, DEFAULT_TENANT, destination.id)
        release(500)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: yard.execute(waiting))
    delivery.wait_until_idle()
    assert is_enabled(yard, destination)
    assert yard.runtime(destination).failures == 0


def test_a_destination_that_is_enabled_again_is_not_disabled_by_what_came_before(
    yard, delivery, receiver
):
    destination = yard.destination(receiver.url, concurrency={"min": 5})
    has_failed_for_long(yard, destination)
    released = asyncio.Event()

    async def one_hangs(_):
        if receiver.in_flight == 1:
            await released.wait()
        return web.Response(status=500)

    receiver.answer = one_hangs
    yard.store(yard.document(), yard.document(), to=destination)
    delivery.deliver(destination)
    wait_until(lambda: not is_enabled(yard, destination))
    changes = DestinationChanges(enabled=True)
    change_destination(yard.engine, DEFAULT_TENANT, destination.id, changes)
    assert receiver.in_flight == 1
    receiver.loop.loop.call_soon_threadsafe(released.set)
    delivery.wait_until_idle()
    assert is_enabled(yard, destination)
    assert yard.runtime(destination).failures == 0


@pytest.mark.parametrize(("looks", "failures"), [(0, 0), (2, 1)])
def test_a_pause_that_ends_between_two_looks_begins_anew_too(
    yard, make_delivery, receiver, looks, failures
):
    """Failures count from the first that is heard of behind it; of the one before nothing stays."""
    delivery = make_delivery(lease_seconds=0.6 if looks else 60)
    release = receiver.hangs()
    destination = yard.destination(receiver.url)
    has_failed_for_long(yard, destination)
    yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: receiver.received)
    with transaction(yard.engine) as connection:
        known = destinations.get(connection, DEFAULT_TENANT, destination.id, lock=True)
        destinations.update(connection, replace(known, paused_at=datetime.now(UTC)))
        destinations.update(connection, known)
        health.forget(connection, DEFAULT_TENANT, destination.id)
    for _ in range(looks):
        wait_for_renewal(yard, destination)
    release(500)
    delivery.wait_until_idle()
    assert is_enabled(yard, destination)
    assert yard.runtime(destination).failures == failures


def test_a_shorter_schedule_ends_what_has_had_more_attempts(yard, delivery, receiver):
    receiver.answers(500)
    destination = yard.destination(receiver.url, retry={"schedule_seconds": [60, 60]})
    document = yard.one(destination)
    for _ in range(2):
        yard.make_due()
        delivery.deliver(destination)
        delivery.wait_until_idle()
    shorter = DestinationChanges(retry={"schedule_seconds": [60]})
    change_destination(yard.engine, DEFAULT_TENANT, destination.id, shorter)
    yard.make_due()
    delivery.deliver(destination)
    delivery.wait_until_idle()
    row = yard.row(document)
    assert (row.state, row.attempts, row.last_status) == ("failed", 2, 500)
    assert row.last_error == "2 attempts began, and its destination allows no more by now"
