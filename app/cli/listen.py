"""``listen``: a receiver for webhooks on this machine that shows and verifies what arrives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from app.domain.signing import new_secret
from app.domain.verifying import parse_key
from app.local.folder import folder_from
from app.local.instance import Client, running_instance

if TYPE_CHECKING:
    from app.local.receiver import Webhook

WIDTH = 60


def listen(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Where to listen on 127.0.0.1; 0: any free.")
    ] = 9000,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="VERIFICATION_KEY", help="What to verify with: whsec_…, whpk_…, or PEM."
        ),
    ] = None,
    *,
    register: Annotated[
        bool, typer.Option(help="Be a destination of the running instance until Ctrl-C.")
    ] = False,
) -> None:
    """Receive webhooks on this machine, verify their signatures and show them."""
    if secret is not None:
        try:
            parse_key(secret)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--secret") from error
    client = _client() if register else None
    if client and secret is None:
        secret = new_secret()
    asyncio.run(_listen(port, secret, client))


def _client() -> Client:
    instance = running_instance(folder_from(os.environ))
    return Client(instance.address, api_key=os.environ.get("ADMIN_API_KEY"))


async def _listen(port: int, secret: str | None, client: Client | None) -> None:
    from app.local.receiver import Receiver  # noqa: PLC0415  (aiohttp, only where it is used)
    from app.local.registration import registered  # noqa: PLC0415  (likewise)

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Receiver(secret, _show, port=port) as receiver:
        with contextlib.ExitStack() as stack:
            if client and secret:
                key = f"listen-{secrets.token_hex(4)}"
                stack.enter_context(registered(client, key=key, url=receiver.url, secret=secret))
                print(f"Registered as the destination {key} of {client.address}.")
            how = "verifying signatures" if secret else "NOT verifying: no --secret, no --register"
            print(f"Listening on {receiver.url}, {how}. Ctrl-C ends it.", flush=True)
            await stopped.wait()


def _show(webhook: Webhook) -> None:
    time = f"{datetime.now().astimezone():%H:%M:%S}"
    if webhook.fault:
        print(f"{time}  REFUSED  {webhook.fault}", flush=True)
        return
    again = "  (again)" if webhook.repeated else ""
    print(f"{time}  {summary(webhook.data)}{again}", flush=True)


def summary(data: dict[str, object]) -> str:
    """Return a document's category, confidence and beginning as one line."""
    confidence = data.get("confidence")
    shown = f"{confidence:4.0%}" if isinstance(confidence, float) else "   -"
    content = " ".join(str(data.get("content", "")).split())
    content = content if len(content) <= WIDTH else f"{content[: WIDTH - 1]}…"
    return f"{data.get('category') or 'unclassified':<26} {shown}  {content}"
