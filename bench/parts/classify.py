"""Documents classified in batches of 256 ÷ the bare tokenizer regex, in one process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

from bench.results import Finding, PartResult, Rounds, ratio
from bench.run import Run
from bench.sides import PROJECT

BATCH = 256
ASKED = 0.6
SIZES = (250, 30)
OURS, REGEX = "classify", "regex"
SINGLE_THREADED = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def measure(run: Run) -> PartResult:
    """Measure both sizes of documents."""
    findings, rounds = [], {}
    for words in SIZES:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(words), str(run.scale.classified)],
            cwd=PROJECT,
            env={**os.environ, **SINGLE_THREADED},
            stdout=subprocess.PIPE,
            check=True,
        )
        what = f"classified/s, batches of {BATCH}, {words} words, one process"
        turns: Rounds = json.loads(done.stdout)
        rounds[what] = turns
        found, detail = ratio(turns, OURS, REGEX)
        findings.append(
            Finding(
                what=f"{what} ÷ regex `(?u)\\b\\w\\w+\\b` over the same, lowercased",
                found=found,
                asked=ASKED,
                detail=detail,
            )
        )
    return PartResult(findings=findings, rounds=rounds)


def main() -> None:
    """Child process: classify and tokenize in turns; print the rates as JSON."""
    from bench import texts  # noqa: PLC0415  (scikit-learn belongs into the child)
    from models.artifact import DEFAULT_PATH, load  # noqa: PLC0415  (likewise)

    words, count = int(sys.argv[1]), int(sys.argv[2])
    documents = texts.take(count, words)
    classifier = load(DEFAULT_PATH)
    tokenize = re.compile(r"(?u)\b\w\w+\b").findall
    batches = [documents[start : start + BATCH] for start in range(0, count, BATCH)]
    classifier.classify(batches[0])
    rates: Rounds = {OURS: [], REGEX: []}
    for _ in range(5):
        began_at = time.perf_counter()
        for batch in batches:
            classifier.classify(batch)
        rates[OURS].append(count / (time.perf_counter() - began_at))
        lowered = [document.lower() for document in documents]
        began_at = time.perf_counter()
        for document in lowered:
            tokenize(document)
        rates[REGEX].append(count / (time.perf_counter() - began_at))
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
