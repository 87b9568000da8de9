"""``verify``: whether everything that was accepted is accounted for."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.installation import settings_of_installation
from app.domain.documents import DEFAULT_TENANT
from app.settings import Settings

if TYPE_CHECKING:
    from app.services.ledger import Ledger


def verify(
    *,
    since: Annotated[
        datetime | None,
        typer.Option(help="Beginning of the range (UTC), down to the hour; all time without."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs, as GET /ledger.")] = False,
    statement_seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Longest look at anything.")
    ] = 30.0,
) -> None:
    """Compare what was accepted, stored and delivered; exit status 1 when it does not add up."""
    found = asyncio.run(_read(settings_of_installation(), _utc(since), statement_seconds))
    if json:
        from app.api.ledger import ledger_output  # noqa: PLC0415  (as in `migrate`)

        print(ledger_output(found).model_dump_json(indent=2))
    else:
        _show(found)
    if not found.adds_up:
        raise typer.Exit(1)


def _utc(moment: datetime | None) -> datetime | None:
    return moment and (moment if moment.tzinfo else moment.replace(tzinfo=UTC))


async def _read(settings: Settings, since: datetime | None, statement_seconds: float) -> Ledger:
    from app.queue.accepted import read_counts  # noqa: PLC0415  (as in `migrate`)
    from app.queue.connection import connect_async  # noqa: PLC0415  (likewise)
    from app.services.ledger import read_ledger  # noqa: PLC0415  (likewise)
    from app.storage.engine import make_engine  # noqa: PLC0415  (likewise)

    engine = make_engine(settings.database_url, application_name="docyard-verify", pool_size=1)
    client = connect_async(settings.queue_url, verify_tls=settings.redis_tls_verify)
    try:
        return await read_ledger(
            engine,
            partial(read_counts, client, settings.redis_namespace),
            DEFAULT_TENANT,
            since=since,
            statement_seconds=statement_seconds,
        )
    finally:
        await client.aclose()
        engine.dispose()


def _show(found: Ledger) -> None:
    print(f"From {found.since or 'the beginning'} to now\n\nDocuments")
    _show_sums(asdict(found.documents))
    for one in found.destinations:
        print(f"\nDeliveries to {one.destination_key or one.destination_id}")
        numbers = {part.name for part in fields(one)} - {"destination_id", "destination_key"}
        _show_sums({name: count for name, count in asdict(one).items() if name in numbers})
    print()
    for finding in found.findings.items:
        print(f"{finding.kind}: {finding.detail}")
    for name in found.findings.unchecked:
        print(f"Not checked, it takes too long (--statement-seconds): {name}.")
    if found.adds_up:
        print("Everything adds up." if not found.findings.unchecked else "The rest adds up.")


def _show_sums(sums: dict[str, int]) -> None:
    for name, count in sums.items():
        print(f"  {name.replace('_', ' '):<14} {count:>14,}")
