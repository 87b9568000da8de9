"""Children are started again when they die or fall silent, and end with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.supervision import children as supervision
from app.supervision.children import EXIT_REFUSED, LONGEST_PAUSE_SECONDS, Child, Nursery
from tests.acceptance.conftest import PROJECT, until

NAP = "import time; time.sleep(60)"
BEATING = """
import threading
from app.supervision.pulse import Pulse
Pulse().beat_on_thread(threading.Event())
threading.Event().wait(60)
"""


def command(code):
    return [sys.executable, "-c", code]


@pytest.fixture
def make_nursery():
    made = []

    def make(code, **options):
        nursery = Nursery({**os.environ, "PYTHONPATH": str(PROJECT)}, **options)
        child = Child(name="one", command=command(code))
        made.append((nursery, child))
        return nursery, child

    yield make
    for nursery, child in made:
        if child.process is not None:
            child.process.kill()
        nursery.stop([child])


def look_until(nursery, child, condition, seconds=30):
    return until(lambda: nursery.look_after(child, time.monotonic()) or condition(), seconds)


def test_the_pause_before_each_start_doubles_up_to_a_bound_and_begins_anew(make_nursery):
    nursery, child = make_nursery("import sys; sys.exit(5)")
    now, pauses = 0.0, []
    for _ in range(9):
        nursery.look_after(child, now)
        child.process.wait()
        nursery.look_after(child, now)
        pauses.append(child.start_at - now)
        now = child.start_at
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    nursery.look_after(child, now)
    child.process.wait()
    nursery.look_after(child, now + supervision.STEADY_SECONDS + 1)
    assert child.pause_seconds == 1.0
    assert max(pauses) == LONGEST_PAUSE_SECONDS


def test_a_silent_child_is_killed_and_started_again(make_nursery):
    nursery, child = make_nursery(BEATING, silent_seconds=5.0)
    assert look_until(nursery, child, lambda: child.beats)
    first = child.process
    # Longer than a silent one would have: it is left alone.
    assert not look_until(nursery, child, lambda: first.poll() is not None, 6)
    os.kill(first.pid, signal.SIGSTOP)
    assert look_until(nursery, child, lambda: child.process not in {None, first})
    assert first.poll() == -signal.SIGKILL
    assert look_until(nursery, child, lambda: child.beats)


def test_after_a_pause_of_our_own_nobody_is_taken_for_silent(make_nursery):
    nursery, child = make_nursery(NAP, silent_seconds=60.0)
    nursery.look_after(child, 0.0)
    first, child.beats = child.process, True
    for now in range(100, 161, 4):
        nursery.look_after(child, float(now))
        assert child.process is first
    nursery.look_after(child, 161.0)
    assert child.process is not first


def test_a_child_that_refuses_to_start_is_not_started_for_ever(make_nursery):
    nursery, child = make_nursery(f"import sys; sys.exit({EXIT_REFUSED})")
    assert look_until(nursery, child, lambda: nursery.refused)
    assert nursery.refused == EXIT_REFUSED


def test_a_child_that_cannot_be_started_is_tried_again(make_nursery):
    nursery, child = make_nursery(NAP)
    child.command = ["/nowhere/to/be/found"]
    nursery.look_after(child, 0.0)
    assert (child.process, child.start_at) == (None, 0.5)
    child.command = command(NAP)
    nursery.look_after(child, 0.5)
    assert child.process is not None


PARENT = """
import sys, time
from app.supervision.children import Child, Nursery
import os
nursery = Nursery(dict(os.environ))
child = Child(name="one", command=[sys.executable, "-c", sys.argv[1]])
nursery.look_after(child, 0.0)
print(child.process.pid, flush=True)
time.sleep(60)
"""
ORPHAN = """
import threading
from app.supervision import pulse
pulse.STOP_SECONDS = 0.5
done = threading.Event()
pulse.end_without_parent({stop})
done.wait(60)
"""


@pytest.mark.parametrize("stop", ["done.set", "lambda: None"], ids=["in order", "at once"])
def test_a_child_ends_when_its_parent_is_killed(stop):
    code = ORPHAN.format(stop=stop)
    parent = subprocess.Popen(
        [*command(PARENT), code], stdout=subprocess.PIPE, cwd=PROJECT, text=True
    )
    log, pid = parent.stdout.readline(), int(parent.stdout.readline())
    assert "child.started" in log
    assert _runs(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert until(lambda: not _runs(pid), 10)


def test_python_that_stands_still_ends_itself_and_says_where():
    code = """
import threading
from app.supervision.pulse import Pulse
Pulse(hung_seconds=0.5).beat()
def hangs():
    threading.Event().wait(60)
hangs()
"""
    done = subprocess.run(
        command(code), cwd=PROJECT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "hangs" in done.stderr


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_beat_never_waits_for_a_parent_that_does_not_listen(monkeypatch):
    from app.supervision.pulse import Pulse

    reading, writing = os.pipe()
    monkeypatch.setenv("DOCYARD_PULSE_PIPE", str(writing))
    pulse = Pulse(hung_seconds=None)
    thread = threading.Thread(target=lambda: [pulse.beat() for _ in range(100_000)])
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    os.close(reading)
    pulse.beat()
    os.close(writing)
