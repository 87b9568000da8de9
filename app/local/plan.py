"""What one run of ``up`` launches."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.local.processes import StopRule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from app.local.folder import DataFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A child of the launcher that is not a server: the web process, the worker."""

    name: str
    command: tuple[str, ...]
    rule: StopRule


def default_parts() -> tuple[Part, ...]:
    """Return the web process and the worker; each gets longer than its own 25 s to drain."""
    python = (sys.executable, "-m", "app")
    web = StopRule(stop_rank=0, grace_seconds=30)
    worker = StopRule(stop_rank=1, grace_seconds=30)
    return (
        Part(name="web", command=(*python, "serve"), rule=web),
        Part(name="worker", command=(*python, "worker"), rule=worker),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to launch.

    Attributes:
        folder: the data folder.
        host: where the web process listens.
        port: likewise; 0 for any free one.
        database_url: a Postgres to use; None for a private one.
        redis_url: a Redis or Valkey to use; None for a private one.
        migrate: returns the function that brings the database to the newest schema. It imports
            much, so it is called while the servers start.
        environment: what else the parts find in their environment.
        parts: what to start on top of the servers.
    """

    folder: DataFolder
    host: str
    port: int
    database_url: str | None
    redis_url: str | None
    migrate: Callable[[], Callable[[str], object]]
    environment: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = field(default_factory=default_parts)
