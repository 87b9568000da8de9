"""``reset``: delete the local data, and nothing else."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from app.local.errors import FolderForeign
from app.local.folder import folder_from


def reset(*, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Delete the local data: every document, delivery and destination of `make up`."""
    folder = folder_from(os.environ)
    if not folder.path.exists():
        print(f"There is nothing to delete: {folder.path} does not exist.")
        return
    if not folder.is_ours:
        raise FolderForeign(folder.path)
    folder.lock()
    try:
        if not yes:
            typer.confirm(f"Delete all documents and everything else in {folder.path}?", abort=True)
        folder.run.stop_all()
        left = folder.delete()
    finally:
        folder.unlock()
    print(f"Deleted the data in {folder.path}.")
    if left:
        print(f"Left alone, since it is not ours: {', '.join(path.name for path in left)}.")
