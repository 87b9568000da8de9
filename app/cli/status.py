"""``status``: what runs on this machine, where, and how it is."""

from __future__ import annotations

import os
from typing import Any

import typer

from app.local.errors import InstanceSilent, NotRunning
from app.local.folder import DataFolder, folder_from
from app.local.instance import Client, Instance, running_instance


def status() -> None:
    """Show what `up` runs, where, and whether it is ready; exit code 1 when it is not."""
    folder = folder_from(os.environ)
    try:
        instance = running_instance(folder)
    except NotRunning as error:
        print(error)
        _show_parts(folder)
        raise typer.Exit(1) from None
    print(f"Docyard at {instance.address}, data in {folder.path}\n")
    _show_parts(folder)
    _show_servers(instance)
    if not _show_answers(instance):
        raise typer.Exit(1)


def _show_parts(folder: DataFolder) -> None:
    for mark in folder.run.marks():
        state = f"runs as process {mark.pid}" if mark.alive else "has ended"
        print(f"  {mark.name:<10} {state:<24} log: {folder.log(mark.name)}")


def _show_servers(instance: Instance) -> None:
    print(f"\n  database   {instance.database or 'the one that DATABASE_URL names'}")
    print(f"  queue      {instance.queue or 'the one that REDIS_URL names'}\n")


def _show_answers(instance: Instance) -> bool:
    client = Client(instance.address, api_key=os.environ.get("ADMIN_API_KEY"), timeout=5.0)
    try:
        code, ready = client.ask("GET", "/readyz")
        _, overview = client.ask("GET", "/")
    except InstanceSilent as error:
        print(error)
        return False
    print(f"  /readyz answers {code}")
    for answer in (ready, overview):
        for name, value in _flat(answer):
            print(f"    {name:<28} {value}")
    return code == 200  # noqa: PLR2004 - HTTP's OK


def _flat(answer: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of a JSON answer with dotted names, without links and empty lists."""
    if isinstance(answer, list):
        # An object in a list is known by its first field, as in {"queue": "ingest", …}.
        named = [item for item in answer if isinstance(item, dict) and item]
        answer = {str(item.pop(next(iter(item)))): item for item in named} or (
            ", ".join(map(str, answer)) if answer else {}
        )
    if not isinstance(answer, dict):
        return [(prefix.rstrip("."), answer)] if prefix and answer is not None else []
    return [
        leaf
        for name, value in answer.items()
        if name != "links"
        for leaf in _flat(value, f"{prefix}{name}.")
    ]
