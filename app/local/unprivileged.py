"""Postgres refuses to run as root; then it runs as ``nobody``, on a folder that belongs to it.

No system user is ever added. The folder may lie where ``nobody`` cannot go, typically a clone in
/root. Then Postgres gets its data folder as its working directory, opened before the change of
user, and a copy of its programs in a place that everybody can read.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.local.binaries import Program

PROGRAMS_COPY = Path("/var/cache/docyard")
_WORKING_DIRECTORY = Path("/proc/self/cwd")


@dataclass(frozen=True, slots=True)
class Account:
    """Who Postgres runs as, where that is not whoever starts it."""

    uid: int
    gid: int

    def popen(self) -> dict[str, Any]:
        """Return the arguments for ``subprocess`` that switch to this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a folder to this account."""
        os.chown(path, self.uid, self.gid)

    def can_reach(self, path: Path) -> bool:
        """Whether this account may enter a folder or run a program, by asking the system."""
        return (
            subprocess.run(  # noqa: S603 - a fixed program and a path of ours, no shell
                ["/usr/bin/test", "-x", path], cwd="/", check=False, **self.popen()
            ).returncode
            == 0
        )


def account_for(data: Path) -> Account | None:
    """Return the account for a data folder, None when the caller's own will do.

    An existing folder is used as its owner: root may look after another user's clone.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def name_for(data: Path, account: Account | None) -> Path:
    """Return the name under which Postgres, started inside its data folder, can open it."""
    if account is None or account.can_reach(data) or not _WORKING_DIRECTORY.exists():
        return data
    return _WORKING_DIRECTORY


def program_for(program: Program, account: Account | None) -> Program:
    """Return a program that the account can run: this one, or a copy of its package."""
    if account is None or account.can_reach(program.path):
        return program
    package = next(parent for parent in program.path.parents if parent.name.startswith("pginstall"))
    package = package.parent
    copy = PROGRAMS_COPY / f"{program.source}-{program.version}"
    if not copy.exists():
        unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
        # The wheel's shared libraries lie in a sibling folder that the programs name relatively.
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.exists():
                shutil.copytree(
                    folder,
                    unfinished / folder.name,
                    symlinks=True,
                    ignore=shutil.ignore_patterns("__pycache__", "include"),
                )
        subprocess.run(  # noqa: S603 - fixed words and a path of ours, no shell
            ["/bin/chmod", "-R", "a+rX", PROGRAMS_COPY, unfinished], check=True
        )
        unfinished.rename(copy)
    return replace(program, path=copy / package.name / program.path.relative_to(package))
