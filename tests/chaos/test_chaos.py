"""The short form of ``make chaos``; docs/chaos.md says what it proves."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos.plan import Kind, draw
from tests.chaos.run import Course, run

QUICK = (
    # Without those that others take over from in fifteen seconds.
    Kind.KILL_WEB,
    Kind.KILL_REDIS,
    Kind.KILL_POSTGRES,
    Kind.RESET,
    Kind.POSTGRES_FULL,
    Kind.REDIS_FULL,
)
SECONDS = 6.0


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")
@pytest.mark.timeout(300)
def test_nothing_is_lost_whatever_plug_is_pulled(capsys):
    seed = random.SystemRandom().randrange(10**6)
    faults = draw(seed, SECONDS, QUICK)
    result = run(seed, faults, Course(seconds=SECONDS, least_documents=300), print)
    told = capsys.readouterr().out
    repeat = f"python -m tests.chaos --seed {seed} --seconds {SECONDS} --kinds {' '.join(QUICK)}"
    assert not result.faults, "\n".join([*result.faults, told, repeat, f"logs: {result.kept}"])
    assert len({recovery.fault.kind for recovery in result.recoveries}) >= 4
