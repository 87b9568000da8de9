"""``up``: everything on this machine, from nothing, until Ctrl-C."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from app.local.folder import folder_from
from app.local.launcher import Launcher, StopAsked
from app.local.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_PORT = 8000


def up(
    host: Annotated[str, typer.Option(envvar="HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="PORT", min=0, max=65_535, help="0 takes any free one.")
    ] = DEFAULT_PORT,
) -> None:
    """Start servers, web and worker on this machine; Ctrl-C stops them, the data stays."""
    began = time.monotonic()
    plan = plan_from(os.environ, host=host, port=port)
    try:
        with Launcher(plan, _say) as launcher:
            _say(
                _announcement(
                    launcher.address,
                    seconds=time.monotonic() - began,
                    with_key=bool(os.environ.get("ADMIN_API_KEY")),
                )
            )
            launcher.watch()
            _say("")
    except StopAsked:
        pass
    _say(f"Stopped. The data stays in {plan.folder.path}.")


def plan_from(environment: Mapping[str, str], *, host: str, port: int) -> Plan:
    """Return what to launch; servers that the environment names take the place of private ones."""
    return Plan(
        folder=folder_from(environment),
        host=host,
        port=port,
        database_url=environment.get("DATABASE_URL") or None,
        redis_url=environment.get("REDIS_TLS_URL") or environment.get("REDIS_URL") or None,
        migrate=_import_migrate,
        environment={
            name: environment[name]
            for name in ("DESTINATION_ALLOW_CIDRS", "ENCRYPTION_KEYS")
            if environment.get(name)
        },
    )


def _import_migrate() -> Callable[[str], object]:
    # SQLAlchemy and Alembic take half a second; meanwhile the servers start.
    from app.storage.migrate import migrate  # noqa: PLC0415  (see above)

    return migrate


def _announcement(address: str, *, seconds: float, with_key: bool) -> str:
    key = ' -H "Authorization: Bearer $ADMIN_API_KEY"' if with_key else ""
    return f"""
Docyard is up at {address} ({seconds:.1f} s). Try:

  curl -i {address}/documents{key} -H 'Content-Type: application/json' \\
    -d '{{"content": "The shuttle reached orbit after a flawless launch."}}'

`make demo` shows 20 documents arriving, `make logs` what happens. Ctrl-C stops everything.
"""


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError:
        return  # the terminal was closed; stopping in order matters more
