"""``reset``: delete the local data, and nothing else."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from app.local.errors import FolderForeign
from app.local.folder import KEY_FILE, folder_from


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
        left = folder.delete(keep_key=bool(os.environ.get("DATABASE_URL")))
    finally:
        folder.unlock()
    print(f"Deleted the data in {folder.path}.")
    if folder.path.exists() and (folder.path / KEY_FILE).exists():
        print(f"Kept {KEY_FILE}: a database elsewhere may hold secrets that only it can read.")
    if left:
        print(f"Left alone, since it is not ours: {', '.join(path.name for path in left)}.")
