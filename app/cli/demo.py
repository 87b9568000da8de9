"""``demo``: posts the example documents to the running instance and shows each arriving."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.domain.signing import new_secret
from app.local.display import summary
from app.local.folder import PROJECT, folder_from
from app.local.instance import Client, running_instance

if TYPE_CHECKING:
    from app.local.receiver import Webhook

EXAMPLES = PROJECT / "examples" / "documents"


def demo(
    folder: Annotated[
        Path, typer.Option(help="JSON files, each a document named after its category.")
    ] = EXAMPLES,
    timeout_seconds: Annotated[float, typer.Option(help="How long to wait for all.")] = 30.0,
) -> None:
    """Post the example documents and show each arriving, classified, at a local receiver."""
    bodies = _read(folder)
    instance = running_instance(folder_from(os.environ))
    client = Client(instance.address, api_key=os.environ.get("ADMIN_API_KEY"))
    show = _Show({str(uuid.uuid4()): file for file in bodies})
    asyncio.run(_run(client, show, bodies, timeout_seconds))
    print(f"\n{show.verdict()}")
    if show.missing or show.faults:
        raise typer.Exit(1)


def _read(folder: Path) -> dict[Path, dict[str, Any]]:
    bodies = {}
    for file in sorted(folder.glob("*.json")):
        try:
            body = json.loads(file.read_bytes())
        except (OSError, ValueError):
            body = None
        if not isinstance(body, dict):
            raise typer.BadParameter(f"{file.name} is no JSON object", param_hint="--folder")
        bodies[file] = body
    if not bodies:
        raise typer.BadParameter(f"there are no JSON files in {folder}", param_hint="--folder")
    return bodies


@dataclass
class _Show:
    """What was sent, and what came of it.

    Attributes:
        files: document id to the file it was read from.
        sent_at: document id to the monotonic time of its POST.
        as_named: how many got the category that their file is named after.
        faults: what was wrong with signatures.
    """

    files: dict[str, Path]
    sent_at: dict[str, float] = field(default_factory=dict)
    arrived: set[str] = field(default_factory=set)
    as_named: int = 0
    faults: list[str] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def missing(self) -> list[str]:
        return [file.name for sent, file in self.files.items() if sent not in self.arrived]

    def received(self, webhook: Webhook) -> None:
        """Print a row for a document of ours."""
        document = str(webhook.data.get("id"))
        if webhook.fault:
            self.faults.append(webhook.fault)
        elif document in self.files and document not in self.arrived:
            self.arrived.add(document)
            self.as_named += webhook.data.get("category") == self.files[document].stem
            waited = (time.monotonic() - self.sent_at[document]) * 1000
            print(f"{waited:7.0f} ms  {summary(webhook.data)}", flush=True)
            if len(self.arrived) == len(self.files):
                self.complete.set()

    def verdict(self) -> str:
        count = len(self.files)
        arrived = f"{len(self.arrived)} of {count} arrived with a valid signature"
        lines = [f"{arrived}, {self.as_named} in the category that their author had in mind."]
        if self.faults:
            lines.append(f"{len(self.faults)} refused: {self.faults[0]}")
        if self.missing:
            lines.append(f"Missing: {', '.join(self.missing)}. `make logs` may tell why.")
        return "\n".join(lines)


async def _run(
    client: Client, show: _Show, bodies: dict[Path, dict[str, Any]], timeout_seconds: float
) -> None:
    from app.local.receiver import Receiver  # noqa: PLC0415  (aiohttp, only where it is used)
    from app.local.registration import registered  # noqa: PLC0415  (likewise)

    secret = new_secret()
    async with Receiver(secret, show.received) as receiver:
        key = f"demo-{secrets.token_hex(4)}"
        with registered(client, key=key, url=receiver.url, secret=secret):
            print(f"Posting {len(show.files)} documents to {client.address} …\n")
            print(f"{'after':>10}  {'category':<26} conf  content")
            for document, file in show.files.items():
                body = bodies[file] | {"id": document}
                show.sent_at[document] = time.monotonic()
                await asyncio.to_thread(client.call, "POST", "/documents", body)
            try:
                async with asyncio.timeout(timeout_seconds):
                    await show.complete.wait()
            except TimeoutError:
                return  # the verdict names what is missing
