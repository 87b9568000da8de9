"""Documents that kill the classifier's process, and those that do not."""

from __future__ import annotations

import subprocess
import sys

from worker import isolation
from worker.isolation import Poison


def test_the_document_that_kills_or_fails_is_named_and_the_others_classified(isolated):
    answers = isolated.classify(["a", "kills", "b", "raises", "c"])
    assert [isinstance(one, Poison) for one in answers] == [False, True, False, True, False]
    assert "died" in answers[1]
    assert "ValueError: no" in answers[3]
    assert answers[4].category == "fine"


def test_a_document_on_which_the_classifier_hangs_is_named(isolated, monkeypatch):
    monkeypatch.setattr(isolation, "ANSWER_SECONDS", 4.0)
    answers = isolated.classify(["hangs", "b"])
    assert isinstance(answers[0], Poison)
    assert answers[1].category == "fine"


def test_a_document_is_not_blamed_for_what_another_did_to_the_process(isolated):
    answers = isolated.classify(["dooms the next", "innocent", "b"])
    assert [one.category for one in answers] == ["fine"] * 3


def test_the_isolated_process_stays_for_the_next_chunk_and_not_for_ever(isolated, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        isolation.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )
    isolated.classify(["a"])
    isolated.classify(["b", "c"])
    (first,) = started
    first.kill()  # as it ends itself, when nobody asks
    first.wait()
    assert isolated.classify(["d"])[0].category == "fine"
    assert len(started) == 2
    isolated.close()
    assert started[1].returncode is not None


def test_an_isolated_process_that_nobody_asks_ends(poisonous):
    code = "from worker import isolation; isolation.IDLE_SECONDS = 0.1; isolation.main()"
    command = [sys.executable, "-c", code, str(poisonous)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.wait(60) == 0
