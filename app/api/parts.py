"""What the web process has open; made at start, closed at its end."""

from __future__ import annotations

from dataclasses import dataclass

import redis.asyncio
from fastapi import Request
from sqlalchemy import Engine

from app.domain.vault import Vault
from app.queue.intake import Intake
from app.queue.questions import Asker
from app.queue.server import ServerWatch
from app.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The open parts of a web process."""

    settings: Settings
    engine: Engine
    redis: redis.asyncio.Redis
    server: ServerWatch
    intake: Intake
    asker: Asker
    vault: Vault


def parts_of(request: Request) -> Parts:
    """Return the parts of the process that serves a request."""
    parts: Parts = request.app.state.parts
    return parts


def engine_of(request: Request) -> Engine:
    """Return the database of the process that serves a request."""
    return parts_of(request).engine
