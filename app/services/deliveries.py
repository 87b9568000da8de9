"""Finding deliveries, looking into one, and planning ended ones anew."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import NamedTuple

from sqlalchemy import Engine

from app.domain.delivery_ids import DeliveryPlace, delivery_id
from app.domain.errors import (
    DeliveryNotFound,
    DeliveryNotReplayable,
    InvalidInput,
    ReplayNotFound,
    Violation,
)
from app.domain.identifiers import new_id
from app.domain.replays import why_no_replay
from app.storage import attempts, delivery_errors, delivery_search, destinations, replays
from app.storage.attempts import StoredAttempt
from app.storage.delivery_errors import ErrorGroups
from app.storage.delivery_search import DeliveryFilter, DeliveryPage, DeliveryRecord
from app.storage.engine import transaction
from app.storage.replays import ReplayJob

COUNT_SECONDS = 10.0
COUNT_PIECE = 5_000


class ReplayCount(NamedTuple):
    """What a replay would do; ``complete`` is False where counting took too long."""

    planned: int
    skipped: int
    complete: bool


def with_destination_key(
    engine: Engine, tenant_id: int, wanted: DeliveryFilter, key: str | None
) -> DeliveryFilter:
    """Return a filter for the destination of a key.

    Raises:
        InvalidInput: there is none, or the filter names another one.
    """
    if key is None:
        return wanted
    with transaction(engine) as connection:
        found = destinations.get_by_key(connection, tenant_id, key)
    if found is None:
        raise InvalidInput([Violation("/destination_key", "No destination has this key.")])
    if wanted.destination_id not in {None, found.id}:
        raise InvalidInput([Violation("/destination_key", "destination_id names another one.")])
    return replace(wanted, destination_id=found.id)


def find_deliveries(
    engine: Engine,
    tenant_id: int,
    wanted: DeliveryFilter,
    *,
    limit: int,
    after: DeliveryPlace | None,
) -> DeliveryPage:
    """Return a page of deliveries, those of the documents accepted last first."""
    with transaction(engine) as connection:
        return delivery_search.find(connection, tenant_id, wanted, limit=limit, after=after)


def read_delivery(
    engine: Engine, tenant_id: int, place: DeliveryPlace
) -> tuple[DeliveryRecord, list[StoredAttempt]]:
    """Return a delivery with the attempts that are still kept.

    Raises:
        DeliveryNotFound: there is none.
    """
    with transaction(engine) as connection:
        found = delivery_search.get(connection, tenant_id, place)
        if found is None:
            raise DeliveryNotFound(delivery_id(place))
        return found, attempts.of_delivery(connection, tenant_id, place)


def group_errors(
    engine: Engine, tenant_id: int, *, destination_id: uuid.UUID | None, first_seq: int
) -> ErrorGroups:
    """Return what goes wrong, in groups."""
    with transaction(engine) as connection:
        return delivery_errors.groups(
            connection, tenant_id, destination_id=destination_id, first_seq=first_seq
        )


def replay_delivery(engine: Engine, tenant_id: int, place: DeliveryPlace) -> DeliveryRecord:
    """Plan an ended delivery anew; return the new one.

    Raises:
        DeliveryNotFound: there is none.
        DeliveryNotReplayable: it is open, superseded, or there is nothing to deliver to or from.
    """
    with transaction(engine) as connection:
        known = delivery_search.get(connection, tenant_id, place)
        facts = replays.facts_of(connection, tenant_id, [place]).get(place)
        if known is None or facts is None:
            raise DeliveryNotFound(delivery_id(place))
        if reason := why_no_replay(facts):
            raise DeliveryNotReplayable(reason)
        planned = replays.plan(connection, tenant_id, [place])
        made = delivery_search.get(connection, tenant_id, planned[0]) if planned else None
        if made is None:
            raise DeliveryNotReplayable("somebody else is replaying it")
        return made


def start_replay(engine: Engine, tenant_id: int, by: DeliveryFilter) -> ReplayJob:
    """Begin to plan anew what a filter finds; the workers do it, piece by piece."""
    replay_id = new_id()
    with transaction(engine) as connection:
        replays.create(connection, tenant_id, replay_id, by)
    return read_replay(engine, tenant_id, replay_id)


def read_replay(engine: Engine, tenant_id: int, replay_id: uuid.UUID) -> ReplayJob:
    """Return a replay.

    Raises:
        ReplayNotFound: there is none.
    """
    with transaction(engine) as connection:
        job = replays.get(connection, tenant_id, replay_id)
    if job is None:
        raise ReplayNotFound(replay_id)
    return job


def count_replay(
    engine: Engine, tenant_id: int, by: DeliveryFilter, *, seconds: float = COUNT_SECONDS
) -> ReplayCount:
    """Count what a replay would plan, a piece per transaction, for so long at most."""
    until = time.monotonic() + seconds
    planned = skipped = 0
    after: DeliveryPlace | None = None
    while True:
        with transaction(engine) as connection:
            page = delivery_search.find(connection, tenant_id, by, limit=COUNT_PIECE, after=after)
            places = [one.place for one in page.items]
            good = len(replays.replayable(connection, tenant_id, places))
        planned, skipped, after = planned + good, skipped + len(places) - good, page.next
        if after is None or time.monotonic() > until:
            return ReplayCount(planned, skipped, after is None)
