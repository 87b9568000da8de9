"""``rejected``: documents that were set aside; look, put back, drop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.installation import settings_of_installation
from app.domain.documents import DEFAULT_TENANT, MAX_SEQ
from app.settings import Settings

if TYPE_CHECKING:
    import redis.asyncio
    from sqlalchemy import Engine

rejected = typer.Typer(help="Documents that were set aside, with their bytes and the reason.")

Ids = Annotated[list[int], typer.Argument(metavar="ID...", min=0, max=MAX_SEQ)]
PAGE = 500


@rejected.command("list")
def list_() -> None:
    """List what was set aside, what was accepted last first."""
    from app.services.rejected import list_rejected  # noqa: PLC0415  (as in `migrate`)

    with database() as (engine, _):
        after: int | None = None
        count = 0
        while True:
            page, after = list_rejected(engine, DEFAULT_TENANT, limit=PAGE, after=after)
            count += len(page)
            for one in page:
                waits = "  (retried, waits)" if one.retried_at else ""
                print(
                    f"{one.seq}  {one.document_id or '-'!s:<36}  {one.stage:<10}"
                    f"  {one.rejected_at:%Y-%m-%d %H:%M:%S}  {one.reason}{waits}"
                )
            if after is None:
                break
    if not count:
        print("There are none.", file=sys.stderr)


@rejected.command()
def show(rejected_id: Annotated[int, typer.Argument(metavar="ID", min=0, max=MAX_SEQ)]) -> None:
    """Show one: what is known of it on stderr, its bytes on stdout."""
    from app.services.rejected import read_rejected  # noqa: PLC0415  (likewise)

    with database() as (engine, _):
        found = read_rejected(engine, DEFAULT_TENANT, rejected_id)
    facts = ("document_id", "stage", "reason", "rejected_at", "retried_at", "size")
    show_with_bytes(found, facts, found.body)


@rejected.command()
def retry(
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", min=0, max=MAX_SEQ)] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that are set aside.")] = False,
) -> None:
    """Try some again, as the versions that they were accepted as."""
    from app.services.rejected import list_rejected, retry_rejected  # noqa: PLC0415  (likewise)

    async def one(engine: Engine, client: redis.asyncio.Redis, seq: int) -> None:
        namespace = settings_of_installation().redis_namespace
        await retry_rejected(engine, client, namespace, DEFAULT_TENANT, seq)

    def all_of_them(engine: Engine) -> Iterator[int]:
        after: int | None = None
        while True:
            page, after = list_rejected(engine, DEFAULT_TENANT, limit=PAGE, after=after)
            yield from (found.seq for found in page)
            if after is None:
                return

    each_of(ids or [], one, all_of_them if everything else None)


@rejected.command()
def drop(ids: Ids) -> None:
    """Let go of some for good."""
    from app.services.rejected import drop_rejected  # noqa: PLC0415  (likewise)

    drop_each(ids, drop_rejected)


@contextmanager
def database() -> Iterator[tuple[Engine, Settings]]:
    """Open the database of the settings."""
    from app.storage.engine import make_engine  # noqa: PLC0415  (likewise)

    settings = settings_of_installation()
    engine = make_engine(settings.database_url, application_name="docyard-cli", pool_size=1)
    try:
        yield engine, settings
    finally:
        engine.dispose()


def show_with_bytes(found: object, facts: tuple[str, ...], body: bytes | None) -> None:
    """Print facts for a person and the bytes for a program."""
    for name in facts:
        print(f"{name:<12} {getattr(found, name)}", file=sys.stderr)
    sys.stdout.flush()
    sys.stdout.buffer.write((body or b"") + b"\n")


def drop_each(ids: list[Any], drop_one: Callable[[Engine, int, Any], None]) -> None:
    """Drop each and say so; one that is gone is told, and does not stop the others."""
    from app.domain.errors import NotFound  # noqa: PLC0415  (likewise)

    good = True
    with database() as (engine, _):
        for one in ids:
            try:
                drop_one(engine, DEFAULT_TENANT, one)
                print(f"{one} dropped")
            except NotFound as error:
                good = False
                print(f"{one}: {error}", file=sys.stderr)
    if not good:
        raise typer.Exit(1)


def each_of(
    ids: list[Any],
    work: Callable[[Engine, redis.asyncio.Redis, Any], Awaitable[None]],
    everything: Callable[[Engine], Iterator[Any]] | None,
) -> None:
    """Retry each and say so; what cannot be retried is told, and does not stop the others."""
    from app.domain.errors import Conflict, NotFound  # noqa: PLC0415  (likewise)
    from app.queue.connection import connect_async  # noqa: PLC0415  (likewise)

    if bool(ids) == bool(everything):
        message = "name ids, or --all"
        raise typer.BadParameter(message)

    async def run(engine: Engine, settings: Settings) -> bool:
        client = connect_async(settings.queue_url, verify_tls=settings.redis_tls_verify)
        good = True
        try:
            for one in everything(engine) if everything else ids:
                try:
                    await work(engine, client, one)
                    print(f"{one} retried")
                except (Conflict, NotFound) as error:
                    good = False
                    print(f"{one}: {error}", file=sys.stderr)
        finally:
            await client.aclose()
        return good

    with database() as (engine, settings):
        if not asyncio.run(run(engine, settings)):
            raise typer.Exit(1)
