"""``logs``: what the parts wrote, side by side."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from app.local.folder import DataFolder, folder_from
from app.local.logfiles import Follower, last_lines

PARTS = ("web", "worker", "postgres", "valkey")
_LOOK_SECONDS = 0.2


def logs(
    part: Annotated[str | None, typer.Argument(help=f"One of {', '.join(PARTS)}.")] = None,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Per part.")] = 20,
) -> None:
    """Show the end of the logs of all parts, or of one."""
    if part is not None and part not in PARTS:
        raise typer.BadParameter(f"there is {', '.join(PARTS)}", param_hint="PART")
    folder = folder_from(os.environ)
    shown = (part,) if part else PARTS
    followers = {name: Follower(folder.log(name)) for name in shown}
    for name in shown:
        _print(name, last_lines(folder.log(name), lines).splitlines())
    if not follow:
        _hint(folder)
        return
    try:
        while True:
            for name, follower in followers.items():
                _print(name, follower.new_lines())
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        return


def _print(name: str, lines: list[str]) -> None:
    for line in lines:
        print(f"{name:<8} | {line}", flush=True)


def _hint(folder: DataFolder) -> None:
    if not any(folder.log(name).exists() for name in PARTS):
        print(f"There are no logs in {folder.path} yet. Start with `make up`.")
