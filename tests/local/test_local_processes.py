"""Marks of processes, and stopping them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from app.local import processes
from app.local.processes import Mark, RunFolder, StopRule, start_stamp, stop

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    yield folder
    folder.stop_all()


def start(run, tmp_path, name="part", script="exec sleep 60", **rule):
    return run.start(name, ["sh", "-c", script], log=tmp_path / "log", rule=StopRule(**rule))


def test_a_started_process_is_marked_until_it_was_stopped(run, tmp_path):
    child = start(run, tmp_path)
    (mark,) = run.marks()
    assert (mark.name, mark.pid, mark.alive) == ("part", child.pid, True)
    assert os.getsid(child.pid) == child.pid, "Ctrl-C in the terminal does not reach it"
    assert run.stop(mark) is False
    assert run.marks() == []
    assert child.wait() == -signal.SIGTERM


def test_parts_are_stopped_by_rank(run, tmp_path):
    children = [start(run, tmp_path, name=f"p{rank}", stop_rank=rank) for rank in (2, 0, 3, 1)]
    assert [mark.name for mark in run.marks()] == ["p0", "p1", "p2", "p3"]
    assert run.stop_all() == ["p0", "p1", "p2", "p3"]
    for child in children:
        child.wait()


def test_one_that_does_not_end_is_killed_with_all_of_its_group(run, tmp_path):
    child = start(run, tmp_path, script=f"sleep 61 & {STUBBORN}", grace_seconds=0.1)
    while "ready" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    assert run.stop(run.marks()[0]) is True
    assert child.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while group_members(child.pid):
        assert time.monotonic() < deadline, "its own child outlived it"


def group_members(group: int) -> list[str]:
    shown = subprocess.run(
        ["ps", "-axo", "pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    members = [line.split() for line in shown.splitlines()]
    return [state for pgid, state in members if pgid == str(group) and not state.startswith("Z")]


def test_a_process_that_ended_but_was_not_waited_for_counts_as_gone(run, tmp_path):
    child = start(run, tmp_path, script="exit 0")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_stamp(child.pid) is None
    assert run.stop_all() == []
    child.wait()


def test_a_namesake_with_another_start_is_never_signalled(stranger):
    mark = Mark.of("web", stranger.pid, "some other start", StopRule(stop_signal=signal.SIGKILL))
    assert mark.alive is False
    assert stop(mark) is False
    assert stranger.poll() is None


@pytest.mark.parametrize("stamp", [start_stamp, processes._start_stamp_by_ps])
def test_stamps_hold_with_and_without_proc(stamp, stranger):
    mine = stamp(os.getpid())
    assert mine is not None
    assert mine == stamp(os.getpid())
    assert stamp(stranger.pid) is not None
    stranger.kill()
    stranger.wait()
    assert stamp(stranger.pid) is None


def test_children_do_not_inherit_what_slows_their_start(monkeypatch, run, tmp_path):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    asks = "import os; print(sorted(set(os.environ) & {'PYTHONDONTWRITEBYTECODE', 'MINE'}))"
    run.start(
        "part",
        [sys.executable, "-c", asks],
        log=tmp_path / "log",
        rule=StopRule(),
        environment={"MINE": "1"},
    ).wait()
    assert (tmp_path / "log").read_text() == "['MINE']\n"


def test_files_that_are_no_marks_are_passed_over(run):
    run.path.mkdir()
    (run.path / "half.pid").write_text('{"name": "web"')
    (run.path / "other.pid").write_text('{"pid": 1}')
    assert run.marks() == []


def test_a_process_whose_mark_cannot_be_written_does_not_run(run, tmp_path, monkeypatch):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            started.append(self)

    monkeypatch.setattr(processes.subprocess, "Popen", Recorded)
    (run.path / "part.new").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        start(run, tmp_path)
    (child,) = started
    left = child.poll() is None
    child.kill()
    child.wait()
    assert not left
