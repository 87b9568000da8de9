"""The composition root of the workers: ``dramatiq worker.main:setup``, and our own children.

Resources are opened and closed by small lifecycle middlewares, so they live exactly as long as the
worker in their process, whoever started it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import dramatiq
import dramatiq.worker
import redis
from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware
from sqlalchemy import Engine

from app.domain.documents import DEFAULT_TENANT
from app.extensions import load_collectors, load_router
from app.logs import configure_logging
from app.queue.accepted import read_accepted
from app.queue.batches import forget_finished
from app.queue.broker import HardenedBroker
from app.queue.connection import connect
from app.queue.dead_letters import DeadLetter, move_dead_letters
from app.queue.doorbell import Doorbell
from app.queue.liveness import Vital
from app.queue.messages import FastEncoder
from app.queue.names import COLLECT, DELIVER, LANES, QUESTIONS
from app.queue.oldest import queued_since
from app.queue.resubmit import documents_in
from app.settings import Settings, load_settings
from app.storage import accepted, dead_letters
from app.storage.dead_letters import DeadMessage
from app.storage.destinations import DestinationCache
from app.storage.engine import make_engine, transaction
from worker.actors import register_delivery, register_ingest
from worker.classification import ModelHolder
from worker.grouping import Grouping
from worker.ingest import Ingest, ingest
from worker.isolation import IsolatedClassifier
from worker.middleware import worker_middleware
from worker.planning import Planning, Replanner
from worker.previews import Preview, Previewer, preview
from worker.retention import Intake, Retention
from worker.router_host import RouterHost, TableRouter
from worker.schema import wait_for_schema
from worker.sweeper import Sweeper

Kind = Literal["ingest", "delivery", "collectors"]
KINDS: tuple[Kind, ...] = ("ingest", "delivery", "collectors")
SPARE_CONNECTIONS = 2
"""To Postgres, for the sweeper and the actors beside the pump."""
GROUPS_AT_ONCE = 2
"""Transactions of an ingest process: while one waits for Postgres, the other classifies."""
HUNG_SECONDS = 60.0
"""Without a line of Python run, behind which a process of collectors ends itself."""
RESTART_SECONDS = 0.5
"""Before a consumer or an acknowledgement tries Redis again; Dramatiq waits 3 and 5 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something that lives as long as the worker.

    Attributes:
        start: before the first message.
        stop: when the worker must end; work that is under way still finishes behind it.
        close: behind the last message.
    """

    start: Callable[[], object] = lambda: None
    stop: Callable[[], object] = lambda: None
    close: Callable[[], object] = lambda: None


class WhileWorking(Middleware):
    """Opens the parts of the process in their order and closes them in the opposite one."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Keep the parts."""
        self._parts = parts

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002  (signature)
        """Start the parts."""
        for part in self._parts:
            part.start()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002  (signature)
        """Tell the parts to end."""
        for part in reversed(self._parts):
            part.stop()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002  (signature)
        """Close what the parts had open."""
        for part in reversed(self._parts):
            part.close()


def setup() -> None:
    """Set the global broker for ``dramatiq worker.main:setup``: every queue in one process."""
    settings = load_settings()
    configure_logging(settings)
    # Until Dramatiq kills us, which loses nothing: nothing is in hand yet.
    wait_for_schema(settings.database_url, threading.Event())
    dramatiq.set_broker(make_broker(settings, KINDS))


def make_broker(settings: Settings, kinds: Sequence[Kind]) -> HardenedBroker:
    """Return a broker with the actors and resources of some kinds of work.

    Call it in the process that works: a broker made before a fork shares its identity (D2).
    """
    dramatiq.worker.CONSUMER_RESTART_DELAY_SECS = RESTART_SECONDS
    dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS = RESTART_SECONDS  # type: ignore[assignment]  # given to sleep
    dramatiq.set_encoder(FastEncoder())
    client = connect(settings.queue_url, verify_tls=settings.redis_tls_verify)
    broker = HardenedBroker(
        client, namespace=settings.redis_namespace, middleware=worker_middleware()
    )
    engine = make_engine(
        settings.database_url,
        application_name=f"docyard-{'-'.join(kinds)}",
        pool_size=_pool_size(kinds),
    )
    bell = Doorbell(client, namespace=settings.redis_namespace)
    # The first is closed last.
    parts = [
        Part(close=engine.dispose),
        _sweeper(broker, engine, bell, client, settings),
    ]
    if "ingest" in kinds:
        parts.append(_add_ingest(broker, settings, engine, bell))
    if "delivery" in kinds:
        parts.append(_add_delivery(broker, settings, engine, bell))
    if "collectors" in kinds and settings.collectors:
        parts.append(_add_collectors(broker, settings, engine, bell))
    broker.add_middleware(WhileWorking(parts))
    return broker


def _pool_size(kinds: Sequence[Kind]) -> int:
    size = SPARE_CONNECTIONS
    if "ingest" in kinds:
        size += GROUPS_AT_ONCE
    if "delivery" in kinds:
        from worker.outbox import CONNECTIONS  # noqa: PLC0415  (as in _add_delivery)

        size += CONNECTIONS
    if "collectors" in kinds:
        from worker.collectors.calls import THREADS  # noqa: PLC0415  (likewise)
        from worker.outbox import CONNECTIONS  # noqa: PLC0415

        size += CONNECTIONS + THREADS
    return size


def _add_ingest(broker: HardenedBroker, settings: Settings, engine: Engine, bell: Doorbell) -> Part:
    router = load_router(settings)
    routers = RouterHost(router) if router else TableRouter()
    if isinstance(routers, RouterHost):
        broker.parts["router"] = Vital(routers.calls.silent_seconds)
    destinations = DestinationCache()
    planning = Planning(
        engine=engine,
        destinations=destinations,
        router=routers,
        ring=bell.ring,
        seal=_seal(settings) if router else str,
    )
    parts = Ingest(
        engine=engine,
        model=ModelHolder(settings.model_path),
        isolated=IsolatedClassifier(settings.model_path),
        destinations=destinations,
        ring=bell.ring,
        stopping=threading.Event(),
        planning=planning if router else None,
    )
    broker.parts["classifier"] = Vital(
        parts.model.calls.silent_seconds, settings.classify_timeout_seconds
    )
    groups = Grouping(partial(ingest, parts), at_once=GROUPS_AT_ONCE)
    register_ingest(broker, groups.ingest)
    replanner = Replanner(planning)
    previewer = Previewer(
        broker.client,
        settings.redis_namespace,
        partial(preview, Preview(model=parts.model, planning=parts.planning)),
        broker.wake_event(QUESTIONS),
    )
    # Loaded beside the start of the consumers, so that the first document does not wait for it.
    warm = threading.Thread(target=parts.model.usable, name="model", daemon=True)

    def start() -> None:
        warm.start()
        replanner.start()
        previewer.start()

    def close() -> None:
        previewer.stop()
        replanner.stop()
        planning.router.close()
        parts.isolated.close()

    return Part(start=start, stop=parts.stopping.set, close=close)


def _seal(settings: Settings) -> Callable[[str], str]:
    from app.domain.vault import Vault  # noqa: PLC0415  (cryptography, only for a router of one's own)

    return Vault(settings.encryption_keys).seal_if_able


def _add_delivery(
    broker: HardenedBroker, settings: Settings, engine: Engine, bell: Doorbell
) -> Part:
    # Half a second of imports that an ingest process can do without.
    from worker.deliver import DeliveryResources, deliver  # noqa: PLC0415
    from worker.pump import Pump, PumpOptions  # noqa: PLC0415

    pump = Pump(engine, bell, PumpOptions.of(settings))
    broker.parts["pump"] = Vital(pump.silent_seconds)
    register_delivery(broker, partial(deliver, DeliveryResources(engine=engine, pump=pump)))
    return Part(start=pump.start, stop=pump.stop)


def _add_collectors(
    broker: HardenedBroker, settings: Settings, engine: Engine, bell: Doorbell
) -> Part:
    from worker.collectors.parts import make_parts  # noqa: PLC0415  (as in _add_delivery)
    from worker.collectors.watch import WatchOptions  # noqa: PLC0415
    from worker.pump import PumpOptions  # noqa: PLC0415

    parts = make_parts(
        load_collectors(settings),
        engine,
        bell,
        broker.wake_event(COLLECT),
        PumpOptions.of(settings),
        WatchOptions(hung_seconds=HUNG_SECONDS),
    )
    return Part(start=parts.start, stop=parts.stop, close=parts.close)


def _sweeper(
    broker: HardenedBroker,
    engine: Engine,
    bell: Doorbell,
    client: redis.Redis,
    settings: Settings,
) -> Part:
    def keep(letters: Sequence[DeadLetter]) -> None:
        with transaction(engine) as connection:
            dead_letters.store(
                connection,
                DEFAULT_TENANT,
                [DeadMessage(**one._asdict(), documents=documents_in(one.body)) for one in letters],
            )

    def move() -> int:
        return move_dead_letters(client, broker.namespace, (*LANES, DELIVER), keep)

    def forget(applied: Mapping[uuid.UUID, int]) -> None:
        forget_finished(client, broker.namespace, applied)

    def note() -> None:
        with transaction(engine) as connection:
            accepted.note(
                connection, DEFAULT_TENANT, partial(read_accepted, client, broker.namespace)
            )

    retention = Retention(
        engine,
        settings.retention,
        partial(queued_since, client, broker.namespace),
        Intake(lambda: sum(read_accepted(client, broker.namespace).values())),
    )
    sweeper = Sweeper(
        engine,
        bell.ring_again,
        move,
        forget,
        retention.tick,
        note_accepted=note,
        attempts_retention_days=settings.attempts_retention_days,
    )
    return Part(start=sweeper.start, close=sweeper.stop)
