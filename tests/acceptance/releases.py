"""The previous release, out of the repository's history: the last code before the newest migration.

Heroku and its like run two releases side by side while they deploy, on the newer one's schema. The
older one is unpacked beside the working tree and run by the same Python, with its own modules.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.storage.revisions import needed_revision
from tests.acceptance.conftest import PROJECT

PARTS = ("app", "worker", "models")
"""What runs, as in the image."""
VERSIONS = "app/storage/migrations/versions/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Code that can be run.

    Attributes:
        folder: to run it in.
        revision: of the schema that it was written for.
    """

    folder: Path
    revision: str

    def migrate(self, database_url: str) -> subprocess.CompletedProcess[str]:
        """Run its release phase."""
        return subprocess.run(
            [sys.executable, "-m", "app", "migrate"],
            cwd=self.folder,
            env={**os.environ, "DATABASE_URL": database_url},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )


THIS = Release(folder=PROJECT, revision=needed_revision())


def unpack_previous(folder: Path) -> Release:
    """Unpack the newest code that needs an older schema; skip the test where history ends first."""
    commit, revision = _previous_commit()
    with zipfile.ZipFile(io.BytesIO(_git("archive", "--format=zip", commit, *PARTS))) as packed:
        packed.extractall(folder)
    return Release(folder=folder, revision=revision)


def _previous_commit() -> tuple[str, str]:
    """Return the commit and the revision that it needs.

    The newest migration may not be committed yet, so the search begins with the last commit itself.
    """
    try:
        changes = _git("log", "--first-parent", "--format=%H", "--", VERSIONS).decode().split()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the previous release is in git's history, and there is none here ({error})")
    for commit in ["HEAD", *(f"{change}^" for change in changes)]:
        try:
            files = _git("ls-tree", "--name-only", commit, "--", VERSIONS).decode().split()
        except subprocess.CalledProcessError:
            break
        revisions = [Path(file).name.partition("_")[0] for file in files if file.endswith(".py")]
        if revisions and max(revisions) < THIS.revision:
            return commit, max(revisions)
    pytest.skip(
        f"git's history ends behind the commit before migration {THIS.revision};"
        " `git fetch --unshallow` brings it"
    )


def _git(*arguments: str) -> bytes:
    """Ask git about the project, whoever owns its files and whatever a hook has set."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments],
        cwd=PROJECT,
        env=environment,
        check=True,
        capture_output=True,
    ).stdout
