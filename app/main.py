"""The composition root of the web process: ``uvicorn --factory app.main:create_app``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog
from fastapi import FastAPI
from redis.exceptions import RedisError
from starlette.routing import Route

from app import __version__
from app.api import (
    access,
    batches,
    dead_letters,
    deliveries,
    delivery_records,
    destinations,
    documents,
    errors,
    health,
    ledger,
    operational_events,
    rejected,
    replays,
    routes,
    schema,
    webhook_keys,
)
from app.api.arrays import PostArray, accepted
from app.api.batches import read_document
from app.api.bulk import PostBulk
from app.api.events import EventReader, PostEvent, batch_ok
from app.api.intake import PostDocument
from app.api.parts import Parts
from app.domain.vault import Vault
from app.extensions import load_event_model
from app.queue.connection import connect_async
from app.queue.durability import require
from app.queue.intake import Intake, IntakeLimits, high_water_marks
from app.queue.questions import Asker
from app.queue.server import ServerWatch
from app.settings import Settings, load_settings
from app.storage.engine import make_engine

LOG = structlog.get_logger(__name__)
POOL_SIZE = 5


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; nothing is opened before its lifespan begins.

    Args:
        settings: read from the environment when left out.

    Raises:
        SettingsInvalid: a variable does not hold what it must.
    """
    settings = settings or load_settings()
    app = FastAPI(
        title="Docyard",
        version=__version__,
        description="Takes documents in, classifies each, stores it and fans it out.",
        lifespan=_lifespan,
        # Their pages load scripts from a CDN.
        docs_url=None,
        redoc_url=None,
        # To a problem like every other, not to an empty 307.
        redirect_slashes=False,
        # Costs 8 to 18 % of a small request even with no exporter behind it.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.settings = settings
    read_event = EventReader(load_event_model(settings))
    read = partial(read_document, limits=settings.document_limits)
    app.router.routes[:0] = [
        Route("/documents", PostDocument(settings), methods=["POST"]),
        Route("/documents/batch", PostArray(read, accepted), methods=["POST"]),
        Route("/documents/bulk", PostBulk(settings), methods=["POST"]),
        Route("/v1/event", PostEvent(read_event, settings.max_body_bytes), methods=["POST"]),
        Route("/v1/batch", PostArray(read_event, batch_ok), methods=["POST"]),
    ]
    for module in (
        documents,
        deliveries,
        replays,
        delivery_records,
        routes,
        batches,
        destinations,
        operational_events,
        rejected,
        dead_letters,
        ledger,
        webhook_keys,
        health,
    ):
        app.include_router(module.router)
    app.add_middleware(access.Access, settings=settings)
    errors.install(app)
    schema.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    engine = make_engine(settings.database_url, application_name="docyard-web", pool_size=POOL_SIZE)
    server = ServerWatch(settings.require_durability)
    client = connect_async(
        settings.queue_url, verify_tls=settings.redis_tls_verify, on_connect=server.connected
    )
    intake = Intake(
        client,
        namespace=settings.redis_namespace,
        limits=IntakeLimits(high_water=high_water_marks(settings.high_water_mark)),
        server=server,
    )
    try:
        durability = (await server.look(client)).durability
    except (RedisError, OSError) as error:
        # It may come later; /readyz says so, and until then every POST is refused. What is
        # required of it is then asked when it is first reached.
        LOG.warning("redis.unavailable", reason=str(error))
    else:
        require(durability, settings.require_durability)
        LOG.info("web.started", version=__version__, durability=durability)
    app.state.parts = Parts(
        settings=settings,
        engine=engine,
        redis=client,
        server=server,
        intake=intake,
        asker=Asker(client, settings.redis_namespace),
        vault=Vault(settings.encryption_keys),
    )
    try:
        yield
    finally:
        await intake.close()
        await client.aclose()
        engine.dispose()
