"""A destination's failures in a row, written by its holder; what they lead to happens with them."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from app.domain.health import Change, Health, HealthRules, Observed, change_of
from app.domain.operational_events import OperationalEventType
from app.storage import destinations, operational_events
from app.storage.leases import Lease, health_of

_EVENTS = {
    Change.FAILING: OperationalEventType.DESTINATION_FAILING,
    Change.RECOVERED: OperationalEventType.DESTINATION_RECOVERED,
    Change.DISABLED: OperationalEventType.DESTINATION_DISABLED,
}


def note(
    connection: Connection,
    lease: Lease,
    known: Observed,
    *,
    now: datetime,
    rules: HealthRules,
) -> Change | None:
    """Write a destination's health, tell what is to be told of it, and disable what is dead.

    Args:
        connection: within a transaction.
        lease: of the holder; under an old epoch nothing is written.
        known: as the holder has it. When it is of another URL by now, or goes on from failures that
            were forgotten, nothing is written.
        now: by the holder's clock.
        rules: when what is told.
    """
    health, url, goes_on = known
    values = {
        "tenant_id": lease.tenant_id,
        "destination_id": lease.destination_id,
        "epoch": lease.epoch,
    }
    row = connection.execute(
        text(
            "SELECT failing_since, failures, last_error, failing_told FROM destination_runtime"
            " WHERE tenant_id = :tenant_id AND destination_id = :destination_id"
            " AND epoch = :epoch FOR NO KEY UPDATE"
        ),
        values,
    ).one_or_none()
    if row is None or (url is not None and not _is_still_at(connection, lease, url)):
        return None
    before = health_of(row)
    if goes_on and before.failing_since != health.failing_since:
        return None
    change = change_of(before, health, rules, now)
    is_same = before.failing_since == health.failing_since
    connection.execute(
        text(
            "UPDATE destination_runtime SET failing_since = :failing_since, failures = :failures,"
            " last_error = :last_error, failing_told = :told"
            " WHERE tenant_id = :tenant_id AND destination_id = :destination_id"
        ),
        {
            **values,
            "failing_since": health.failing_since,
            "failures": health.failures,
            "last_error": health.last_error,
            "told": change is Change.FAILING or (is_same and before.told),
        },
    )
    if change is not None:
        _tell(connection, lease, change, before if change is Change.RECOVERED else health, rules)
    return change


def _is_still_at(connection: Connection, lease: Lease, url: str) -> bool:
    """Tell whether a destination has a URL still.

    A statement of its own, behind the lock: the snapshot of that is older than what it waited for.
    """
    return bool(
        connection.execute(
            text(
                "SELECT url = :url FROM destinations"
                " WHERE tenant_id = :tenant_id AND id = :destination_id"
            ),
            {"tenant_id": lease.tenant_id, "destination_id": lease.destination_id, "url": url},
        ).scalar_one_or_none()
    )


def _tell(
    connection: Connection, lease: Lease, change: Change, health: Health, rules: HealthRules
) -> None:
    since = health.failing_since
    data: dict[str, Any] = {
        "failing_since": since,
        "failures": health.failures,
        "last_error": health.last_error,
    }
    if change is Change.FAILING and since is not None:
        data["disabled_at"] = since + timedelta(seconds=rules.disabling_seconds)
    if change is Change.DISABLED:
        reason = (
            f"{health.failures} attempts in a row failed since {since:%Y-%m-%d %H:%M} UTC;"
            f" the last: {health.last_error}"
        )
        data["reason"] = reason
        if not destinations.disable(connection, lease.tenant_id, lease.destination_id, reason):
            return
    operational_events.emit(
        connection, lease.tenant_id, _EVENTS[change], lease.destination_id, data
    )


def forget(connection: Connection, tenant_id: int, destination_id: uuid.UUID) -> None:
    """Begin anew: the destination was enabled, resumed or given another URL."""
    connection.execute(
        text(
            "UPDATE destination_runtime SET failing_since = NULL, failures = 0,"
            " last_error = NULL, failing_told = false"
            " WHERE tenant_id = :tenant_id AND destination_id = :destination_id"
        ),
        {"tenant_id": tenant_id, "destination_id": destination_id},
    )
