"""Failures in a row: kept from holder to holder, told, and in the end a reason to stop."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.documents import DEFAULT_TENANT
from app.domain.health import Change, Health, HealthRules, Observed
from app.storage import destinations, health, leases
from app.storage.engine import transaction
from tests.delivery.conftest import wait_until

LONG_AGO = datetime.now(UTC) - timedelta(days=6)


@pytest.fixture
def watched(yard, receiver):
    """A destination, and another that hears of it."""
    watched = yard.destination(receiver.url, "watched")
    yard.destination(receiver.url, "pager", events=["*"], documents=False)
    return watched


def note(yard, destination, health_, *, now=None):
    with transaction(yard.engine) as connection:
        lease = leases.acquire(connection, DEFAULT_TENANT, destination.id, "me", 0.001)
        return health.note(
            connection, lease, Observed(health_), now=now or datetime.now(UTC), rules=HealthRules()
        )


def told(yard):
    return [
        (row.type, json.loads(row.data) if isinstance(row.data, str) else row.data)
        for row in yard.execute("SELECT type, data FROM operational_events ORDER BY id")
    ]


def test_failures_are_kept_from_lease_to_lease_and_shown(yard, delivery, receiver):
    receiver.answers(500, "broken")
    destination = yard.destination(receiver.url)
    document = yard.one(destination)
    for _ in range(2):
        yard.make_due()
        delivery.deliver(destination)
        delivery.wait_until_idle()
    runtime = yard.runtime(destination)
    assert (runtime.failures, runtime.last_error) == (2, "HTTP 500 Internal Server Error: broken")
    assert runtime.failing_since < yard.row(document).attempted_at
    receiver.answers(200)
    yard.make_due()
    delivery.deliver(destination)
    delivery.wait_until_idle()
    runtime = yard.runtime(destination)
    assert (runtime.failures, runtime.failing_since, runtime.last_error) == (0, None, None)
    assert told(yard) == []  # two failures are not worth a word


def test_failing_is_told_once_and_recovering_when_it_was(yard, delivery, receiver, watched):
    since = datetime.now(UTC) - timedelta(minutes=5)
    yard.one(watched)
    receiver.answers(503)
    with transaction(yard.engine) as connection:
        lease = leases.acquire(connection, DEFAULT_TENANT, watched.id, "me", 0.001)
        row = Health(failing_since=since, failures=4, last_error="HTTP 503")
        health.note(connection, lease, Observed(row), now=datetime.now(UTC), rules=HealthRules())
        leases.release(connection, lease)
    for _ in range(2):
        yard.execute("UPDATE deliveries SET due_at = now() WHERE event_type IS NULL")
        delivery.deliver(watched)
        delivery.wait_until_idle()
    ((kind, data),) = told(yard)
    assert (kind, data["failures"], data["destination_key"]) == (
        "destination.failing",
        5,
        "watched",
    )
    assert data["last_error"].startswith("HTTP 503")
    disabled_at = datetime.fromisoformat(data["disabled_at"])
    assert disabled_at - since == timedelta(days=5)
    receiver.answers(200)
    yard.execute("UPDATE deliveries SET due_at = now() WHERE event_type IS NULL")
    delivery.deliver(watched)
    delivery.wait_until_idle()
    assert [kind for kind, _ in told(yard)] == ["destination.failing", "destination.recovered"]


def test_days_of_nothing_but_failures_disable_and_lose_nothing(yard, delivery, receiver, watched):
    document = yard.one(watched)
    receiver.answers(500)
    with transaction(yard.engine) as connection:
        lease = leases.acquire(connection, DEFAULT_TENANT, watched.id, "me", 0.001)
        row = Health(failing_since=LONG_AGO, failures=19, last_error="HTTP 500", told=True)
        health.note(connection, lease, Observed(row), now=LONG_AGO, rules=HealthRules())
        leases.release(connection, lease)
    delivery.deliver(watched)
    delivery.wait_until_idle()
    with transaction(yard.engine) as connection:
        now = destinations.get(connection, DEFAULT_TENANT, watched.id)
    assert not now.enabled
    assert "20 attempts in a row failed since" in now.disabled_reason
    assert "HTTP 500" in now.disabled_reason
    assert yard.row(document).state == "pending"  # a tick later: held
    assert [kind for kind, _ in told(yard)] == ["destination.disabled"]


def test_whoever_goes_on_trying_is_not_disabled_twice(yard, watched):
    dead = Health(failing_since=LONG_AGO, failures=30, last_error="x")
    assert note(yard, watched, dead) is Change.DISABLED
    assert note(yard, watched, dead) is Change.DISABLED
    assert len(told(yard)) == 1


def test_under_an_old_epoch_nothing_is_told(yard, watched):
    with transaction(yard.engine) as connection:
        old = leases.acquire(connection, DEFAULT_TENANT, watched.id, "me", 0.001)
    yard.execute("SELECT pg_sleep(0.01)")
    with transaction(yard.engine) as connection:
        leases.acquire(connection, DEFAULT_TENANT, watched.id, "another", 60)
        dead = Health(failing_since=LONG_AGO, failures=30, last_error="x")
        now = datetime.now(UTC)
        assert health.note(connection, old, Observed(dead), now=now, rules=HealthRules()) is None
    assert told(yard) == []
    assert yard.runtime(watched).failures == 0


def test_a_destination_that_fails_is_noted_while_it_is_held(yard, make_delivery, receiver):
    delivery = make_delivery(lease_seconds=0.6)
    receiver.answers(500)
    destination = yard.destination(receiver.url, retry={"schedule_seconds": [0.1] * 50})
    yard.one(destination)
    delivery.deliver(destination)
    wait_until(lambda: (runtime := yard.runtime(destination)).holder and runtime.failures >= 3)
