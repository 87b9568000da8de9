"""``dead-letters``: messages of the queue that were given up; look, put back, drop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.installation import settings_of_installation
from app.cli.rejected import PAGE, database, drop_each, each_of, show_with_bytes
from app.domain.documents import DEFAULT_TENANT

if TYPE_CHECKING:
    import redis.asyncio
    from sqlalchemy import Engine

dead_letters = typer.Typer(help="Messages of the queue that were given up, kept in Postgres.")


@dead_letters.command("list")
def list_() -> None:
    """List messages that were given up, what was queued last first."""
    from app.services.rejected import list_dead_letters  # noqa: PLC0415  (as in `migrate`)

    with database() as (engine, _):
        after: str | None = None
        count = 0
        while True:
            page, after = list_dead_letters(engine, DEFAULT_TENANT, limit=PAGE, after=after)
            count += len(page)
            for one in page:
                print(
                    f"{one.message_id:<36}  {one.queue:<11}  {one.documents:>3} documents"
                    f"  {one.died_at:%Y-%m-%d %H:%M:%S}  {one.reason or '-'}"
                )
            if after is None:
                break
    if not count:
        print("There are none.", file=sys.stderr)


@dead_letters.command()
def show(message_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show one: what is known of it on stderr, its bytes on stdout."""
    from app.services.rejected import read_dead_letter  # noqa: PLC0415  (likewise)

    with database() as (engine, _):
        found = read_dead_letter(engine, DEFAULT_TENANT, message_id)
    show_with_bytes(found, ("queue", "reason", "documents", "died_at", "size"), found.body)


@dead_letters.command()
def retry(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that are kept.")] = False,
) -> None:
    """Put some back to their queues."""
    from app.services.rejected import (  # noqa: PLC0415  (likewise)
        list_dead_letters,
        retry_dead_letter,
    )

    async def one(engine: Engine, client: redis.asyncio.Redis, message_id: str) -> None:
        namespace = settings_of_installation().redis_namespace
        await retry_dead_letter(engine, client, namespace, DEFAULT_TENANT, message_id)

    def all_of_them(engine: Engine) -> Iterator[str]:
        after: str | None = None
        while True:
            page, after = list_dead_letters(engine, DEFAULT_TENANT, limit=PAGE, after=after)
            yield from (found.message_id for found in page)
            if after is None:
                return

    each_of(ids or [], one, all_of_them if everything else None)


@dead_letters.command()
def drop(ids: Annotated[list[str], typer.Argument(metavar="ID...")]) -> None:
    """Let go of some for good, and of the documents that they carry."""
    from app.services.rejected import drop_dead_letter  # noqa: PLC0415  (likewise)

    drop_each(ids, drop_dead_letter)
