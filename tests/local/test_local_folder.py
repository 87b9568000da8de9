"""The data folder: whose it is, who uses it, what a reset takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.up import plan_from
from app.domain.encryption import new_key
from app.domain.vault import Vault
from app.local.errors import FolderBusy, FolderForbidden, FolderForeign, FolderUnusable, KeyUnusable
from app.local.folder import KEY_FILE, PROJECT, DataFolder, folder_from
from app.local.launcher import Launcher
from app.local.logfiles import Follower, bound, last_lines
from app.local.sockets import fallback_for, forget_sockets, socket_folder


@pytest.fixture
def folder(tmp_path) -> DataFolder:
    folder = DataFolder(tmp_path / "d")
    folder.claim()
    return folder


def test_docyard_data_names_the_folder_and_the_project_has_the_usual_one(tmp_path):
    assert folder_from({"DOCYARD_DATA": str(tmp_path)}).path == tmp_path.resolve()
    assert folder_from({"DOCYARD_DATA": ""}).path == PROJECT / ".docyard"
    assert folder_from({}).path == PROJECT / ".docyard"


def test_a_new_or_empty_folder_becomes_ours_and_stays_closed_to_others(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "new" / "deep", tmp_path / "empty"):
        folder = DataFolder(path)
        folder.claim()
        folder.claim()
        assert folder.is_ours
        assert path.stat().st_mode & 0o077 == (0o011 if os.geteuid() == 0 else 0)


def test_a_folder_with_other_things_in_it_is_foreign(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FolderForeign):
        DataFolder(tmp_path).claim()
    (tmp_path / "docyard.json").write_text('["not", "the", "marker"]')
    with pytest.raises(FolderForeign):
        DataFolder(tmp_path).claim()


def test_the_key_is_made_once_and_readable_by_its_owner_alone(folder):
    key = folder.encryption_key()
    path = folder.path / KEY_FILE
    assert Vault([key]).open(Vault([key]).seal("x", "")) == "x"
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.encryption_key() == DataFolder(folder.path).encryption_key() == key
    assert sorted(one.name for one in folder.path.iterdir()) == ["docyard.json", KEY_FILE]


@pytest.mark.parametrize("damaged", ["", "hunter2\n"])
def test_a_damaged_key_is_said_and_not_replaced(folder, damaged):
    path = folder.path / KEY_FILE
    path.write_text(damaged)
    with pytest.raises(KeyUnusable, match="make reset"):
        folder.encryption_key()
    assert path.read_text() == damaged


def test_keys_of_the_environment_go_before_the_one_of_the_folder(folder):
    given = new_key()
    plan = plan_from(
        {"DOCYARD_DATA": str(folder.path), "ENCRYPTION_KEYS": given}, host="127.0.0.1", port=0
    )
    keys = Launcher(plan, print).encryption_keys()
    assert keys == f"{given},{folder.encryption_key()}"


def test_one_process_at_a_time_has_the_lock_and_its_end_frees_it(folder):
    hold = "import sys; from pathlib import Path; from app.local.folder import DataFolder\n"
    hold += f"DataFolder(Path({str(folder.path)!r})).lock(); print('locked', flush=True)\n"
    hold += "sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT
    ) as holder:
        holder.stdout.readline()
        with pytest.raises(FolderBusy, match=f"in use by process {holder.pid}"):
            folder.lock()
        holder.kill()
        holder.wait()
        folder.lock()
        folder.unlock()
        folder.lock()
        folder.unlock()


def test_a_lock_that_only_a_guard_holds_is_waited_for(folder):
    # The launcher that noted itself is dead, but the descriptor lives on in its guard.
    guard_s = folder.lock()
    os.pwrite(guard_s, b'{"pid": 999999999, "stamp": "gone"}', 0)
    other = DataFolder(folder.path)
    with pytest.raises(FolderBusy, match="the guard of a killed process"):
        other.lock()
    waited = []

    def waiting(times: int) -> None:
        waited.append(times)
        if times == 2:
            folder.unlock()

    other.lock(waiting=waiting)
    other.unlock()
    assert waited == [0, 1, 2]


def test_what_cannot_be_a_folder_is_refused_with_the_reason(place):
    (place / "file").write_text("")
    for path in (place / "file", place / "file" / "d"):
        with pytest.raises(FolderUnusable, match="cannot be used as the data folder"):
            DataFolder(path).claim()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_folder_of_another_user_is_refused_with_the_user_s_name(place):
    theirs = DataFolder(place / "d")
    theirs.claim()
    os.close(theirs.lock())
    os.setegid(65534)
    os.seteuid(65534)
    try:
        with pytest.raises(FolderForbidden, match="belongs to the user root"):
            DataFolder(theirs.path).lock()
        with pytest.raises(FolderForbidden, match="belongs to the user root"):
            DataFolder(place / "new").claim()
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_deleting_takes_what_is_ours_and_leaves_the_rest(folder):
    (folder.path / "postgres" / "base").mkdir(parents=True)
    (folder.path / "notes.txt").touch()
    assert folder.delete() == [folder.path / "notes.txt"]
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]
    (folder.path / "notes.txt").unlink()
    assert folder.delete() == []
    assert not folder.path.exists()


def test_deleting_does_not_follow_a_link_to_somebody_s_data(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    (folder.path / "postgres").symlink_to(tmp_path / "elsewhere")
    folder.delete()
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_sockets_live_in_the_data_folder_when_its_path_is_short(place):
    assert socket_folder(place / "sockets") == place / "sockets"


def test_a_prepared_temporary_folder_of_somebody_else_is_not_used(place):
    long = place / ("x" * 100)
    trap = fallback_for(long)
    (place / "trap").mkdir(mode=0o755)
    trap.symlink_to(place / "trap")
    try:
        chosen = socket_folder(long)
        assert chosen not in {trap, long}
        assert (place / "trap").stat().st_mode & 0o777 == 0o755, "not even its mode was changed"
    finally:
        trap.unlink()
    for server in ("postgres", "valkey"):
        (chosen / server).rmdir()
    chosen.rmdir()
    again = socket_folder(long)
    assert again == trap, "the same folder each time, so that killed runs leave only one"
    forget_sockets(long)
    assert not again.exists()


def test_a_large_log_is_cut_and_its_writer_goes_on(tmp_path):
    log = tmp_path / "web.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        bound(tmp_path, most_bytes=1_000)
        assert log.stat().st_size == 400
        bound(tmp_path, most_bytes=100)
        writer.write(b"new\n")
    assert log.read_text() == "new\n"
    assert (tmp_path / "web.log.1").stat().st_size == 400
    assert last_lines(tmp_path / "web.log.1", 2) == "old\nold"
    assert last_lines(Path("/nowhere")) == ""


def test_a_follower_gets_whole_lines_over_cutting_and_rotation(tmp_path):
    log = tmp_path / "web.log"
    follower = Follower(log)
    assert follower.new_lines() == []
    log.write_text("one\ntw")
    assert follower.new_lines() == ["one"]
    with log.open("a") as writer:
        writer.write("o\n")
    assert follower.new_lines() == ["two"]
    os.truncate(log, 0)
    assert follower.new_lines() == []
    log.write_text("3\n")
    assert follower.new_lines() == ["3"]
    log.replace(tmp_path / "web.log.1")
    log.write_text("four\n")
    assert follower.new_lines() == ["four"]


def test_a_folder_with_a_comma_in_its_name_has_its_sockets_elsewhere(tmp_path):
    preferred = tmp_path / "a, b"
    preferred.mkdir()
    try:
        assert socket_folder(preferred) == fallback_for(preferred)
    finally:
        forget_sockets(preferred)
