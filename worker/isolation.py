"""Classify one document at a time in a child process that may die of it.

A chunk that is taken up for the second time may have killed its first process. The child reads
one JSON string a line and answers each with one line; the line on which it dies, hangs or raises
names the document.
"""

from __future__ import annotations

import faulthandler
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import orjson

from app.domain.predictions import Prediction
from app.domain.text import sentence_of

ANSWER_SECONDS = 10.0
START_SECONDS = 30.0
OVERTIME_SECONDS = 20.0
"""Of a child that nobody has killed for its silence: its parent is gone."""


class Poison(str):
    """Why a document cannot be classified."""

    __slots__ = ()


def classify_isolated(path: Path, texts: Sequence[str]) -> list[Prediction | Poison]:
    """Return a prediction for each text, or why the text has none."""
    answers: list[Prediction | Poison] = []
    while len(answers) < len(texts):
        answers.extend(_run_child(path, texts[len(answers) :]))
    return answers


def _run_child(path: Path, texts: Sequence[str]) -> Iterator[Prediction | Poison]:
    """Yield answers until all are given or the child is gone; its last text is then the poison."""
    child = subprocess.Popen(  # noqa: S603  (our own module)
        [sys.executable, "-m", "worker.isolation", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None  # noqa: S101  (a pipe was asked for)
    assert child.stdout is not None  # noqa: S101  (likewise)
    try:
        if _line(child.stdout, START_SECONDS) is None:
            message = "the isolated classifier did not start"
            raise RuntimeError(message)
        for text in texts:
            answer = _ask(child.stdin, child.stdout, text)
            if answer is None:
                yield Poison("the classifier's process died or hung on it")
                return
            yield answer
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def _ask(to: IO[bytes], answers: IO[bytes], text: str) -> Prediction | Poison | None:
    try:
        to.write(orjson.dumps(text) + b"\n")
        to.flush()
    except BrokenPipeError:
        return None
    line = _line(answers, ANSWER_SECONDS)
    if line is None:
        return None
    answer = orjson.loads(line)
    if "error" in answer:
        return Poison(f"the classifier failed on it: {answer['error']}")
    return Prediction(**answer)


def _line(stream: IO[bytes], seconds: float) -> bytes | None:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        if not selector.select(seconds):
            return None
    return stream.readline() or None


def main() -> None:
    """Serve one parent, until it closes the pipe."""
    from worker.classification import load_classifier  # noqa: PLC0415  (only in the child)

    # What libraries print must not come between the answers.
    faulthandler.dump_traceback_later(START_SECONDS + OVERTIME_SECONDS, exit=True)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    classifier = load_classifier(Path(sys.argv[1]))
    answers.write(b"ready\n")
    answers.flush()
    faulthandler.cancel_dump_traceback_later()
    for line in iter(sys.stdin.buffer.readline, b""):
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


if __name__ == "__main__":
    main()
