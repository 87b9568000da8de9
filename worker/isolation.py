"""Classify one document at a time in a child process that may die of it.

A chunk that is taken up for the second time may have killed its first process. The child reads
one JSON string a line and answers each with one line; the line on which it dies, hangs or raises
names the document. To load a model takes seconds of processor time, and behind a killed worker
there are dozens of such chunks, so a child stays for the next one for a while.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import selectors
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import orjson

from app.domain.predictions import Prediction
from app.domain.text import sentence_of

ANSWER_SECONDS = 10.0
START_SECONDS = 30.0
OVERTIME_SECONDS = 20.0
"""Of a child that nobody has killed for its silence: its parent is gone."""
IDLE_SECONDS = 15.0
"""For how long a child that nobody asks keeps the memory of a loaded model."""
READY = b"\n"
"""Asks whether the child is there, and answers that it is."""


class Poison(str):
    """Why a document cannot be classified."""

    __slots__ = ()


class IsolatedClassifier:
    """Children with one model, each asked by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Keep the model's folder; nothing starts before the first text."""
        self._path = path
        self._idle: list[_Child] = []  # shared by threads: append and pop are single steps

    def classify(self, texts: Sequence[str]) -> list[Prediction | Poison]:
        """Return a prediction for each text, or why the text has none.

        Raises:
            RuntimeError: a child does not even start.
        """
        return [self._classify(text) for text in texts]

    def close(self) -> None:
        """End the children that nobody asks; any other ends when its pipes close."""
        while self._idle:
            self._idle.pop().end()

    def _classify(self, text: str) -> Prediction | Poison:
        child = self._take()
        answer = child.classify(text)
        if answer is None and child.answered:
            # Perhaps of what it was asked before; one that has seen nothing else will tell.
            child.end()
            child = self._start()
            answer = child.classify(text)
        if answer is None:
            child.end()
            return Poison("the classifier's process died or hung on it")
        self._idle.append(child)
        return answer

    def _take(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.is_ready(ANSWER_SECONDS):
                return child
            child.end()
        return self._start()

    def _start(self) -> _Child:
        child = _Child(self._path)
        if not child.is_ready(START_SECONDS):
            child.end()
            message = "the isolated classifier did not start"
            raise RuntimeError(message)
        return child


class _Child:
    """One process. Each of its methods waits for it, and none for long.

    Attributes:
        answered: how many texts it has answered.
    """

    def __init__(self, path: Path) -> None:
        self.answered = 0
        self._process = subprocess.Popen(  # noqa: S603  (our own module)
            [sys.executable, "-m", "worker.isolation", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None  # noqa: S101  (a pipe was asked for)
        assert self._process.stdout is not None  # noqa: S101  (likewise)
        self._to: IO[bytes] = self._process.stdin
        self._from: IO[bytes] = self._process.stdout

    def is_ready(self, seconds: float) -> bool:
        """Tell whether it is there; one that was not asked for a while has ended."""
        return self._ask(READY, seconds) == READY

    def classify(self, text: str) -> Prediction | Poison | None:
        """Return the answer; None when the process died or hung on the text."""
        line = self._ask(orjson.dumps(text) + b"\n", ANSWER_SECONDS)
        if line is None:
            return None
        self.answered += 1
        answer = orjson.loads(line)
        if "error" in answer:
            return Poison(f"the classifier failed on it: {answer['error']}")
        return Prediction(**answer)

    def end(self) -> None:
        """Kill it; its pipes are closed with what was not written to them."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._to, self._from):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _ask(self, line: bytes, seconds: float) -> bytes | None:
        try:
            self._to.write(line)
            self._to.flush()
        except BrokenPipeError:
            return None
        with selectors.DefaultSelector() as selector:
            selector.register(self._from, selectors.EVENT_READ)
            if not selector.select(seconds):
                return None
        return self._from.readline() or None


def main() -> None:
    """Serve one parent, until it closes the pipe."""
    from worker.classification import load_classifier  # noqa: PLC0415  (only in the child)

    # What libraries print must not come between the answers.
    faulthandler.dump_traceback_later(START_SECONDS + OVERTIME_SECONDS, exit=True)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    classifier = load_classifier(Path(sys.argv[1]))
    faulthandler.cancel_dump_traceback_later()
    lines = sys.stdin.buffer
    while line := _next_line(lines):
        if line == READY:
            answers.write(READY)
            answers.flush()
            continue
        # Where the parent was killed nobody else ends a text that never does.
        faulthandler.dump_traceback_later(ANSWER_SECONDS + OVERTIME_SECONDS, exit=True)
        try:
            prediction = classifier.classify([orjson.loads(line)])[0]
            answer = {
                "category": prediction.category,
                "confidence": prediction.confidence,
                "model_version": prediction.model_version,
            }
        except Exception as error:  # noqa: BLE001  (whatever it is, it is this document's)
            answer = {"error": sentence_of(error)}
        answers.write(orjson.dumps(answer) + b"\n")
        answers.flush()
        faulthandler.cancel_dump_traceback_later()


def _next_line(lines: IO[bytes]) -> bytes:
    """Wait for a line for as long as it is worth the memory; empty when there is none."""
    return lines.readline() if select.select([lines], [], [], IDLE_SECONDS)[0] else b""


if __name__ == "__main__":
    main()
