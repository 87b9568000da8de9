"""``python -m app.local.guard``: stops the parts in order when their launcher died.

A kill -9 gives the launcher no chance to stop anything. This small process waits on a pipe whose
other end only the launcher holds: when it closes, whatever is still marked in the run folder is
stopped. After an orderly end nothing is marked any more, and the guard just ends.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

from app.local.processes import RunFolder, child_environment

PROJECT = Path(__file__).resolve().parents[2]


def start_guard(
    run: RunFolder, *, keep_open: tuple[int, ...] = (), remove: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a guard over a run folder; closing its ``stdin`` sets it off.

    Args:
        run: where the marks are.
        keep_open: descriptors that the guard holds as long as it lives: the data folder's lock.
        remove: a folder to delete at the very end (temporary servers of a test run).
    """
    command: list[str | Path] = [sys.executable, "-S", "-m", "app.local.guard", run.path]
    if remove is not None:
        command.append(remove)
    return subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=keep_open,
        start_new_session=True,
        cwd=PROJECT,
        env=child_environment(),
    )


def main(arguments: list[str]) -> None:
    """Wait for the launcher's end, then stop what it left.

    The pipe tells at once; the parent's number also tells when a fork of the launcher still holds
    the other end.
    """
    launcher = os.getppid()
    while os.getppid() == launcher and not select.select([sys.stdin], [], [], 1.0)[0]:
        pass
    RunFolder(Path(arguments[0])).stop_all()
    for folder in arguments[1:]:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])
