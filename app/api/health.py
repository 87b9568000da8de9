"""``/``, ``/healthz`` and ``/readyz``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from sqlalchemy import Engine

from app import __version__
from app.api.parts import Parts, engine_of, parts_of
from app.domain.documents import DEFAULT_TENANT
from app.services.health import check_readiness, count_totals

router = APIRouter(tags=["health"])


@router.get("/")
def front_page(engine: Annotated[Engine, Depends(engine_of)]) -> dict[str, Any]:
    """Say what this is, how much it holds and where to go on."""
    return {
        "name": "docyard",
        "version": __version__,
        "counts": asdict(count_totals(engine, DEFAULT_TENANT)),
        "links": {
            "openapi": "/openapi.json",
            "destinations": "/destinations",
            "health": "/healthz",
            "readiness": "/readyz",
        },
    }


@router.head("/healthz", include_in_schema=False)  # load balancers ask so
@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer as long as the process serves requests."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"description": "A part is missing; says which."}})
async def readyz(response: Response, parts: Annotated[Parts, Depends(parts_of)]) -> dict[str, Any]:
    """Tell whether Postgres and Redis are there, how durable a 202 is, and what is queued."""
    readiness = await check_readiness(
        parts.engine,
        parts.redis,
        parts.server,
        namespace=parts.settings.redis_namespace,
    )
    if not readiness.ready:
        response.status_code = 503
        response.headers["Retry-After"] = "2"
    return {
        "status": "ready" if readiness.ready else "not ready",
        "durability": readiness.durability,
        "queues": [asdict(queue) for queue in readiness.queues],
        "problems": readiness.problems,
        "warnings": readiness.warnings,
    }
