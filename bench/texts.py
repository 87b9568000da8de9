"""What is sent: English-like documents, every one different, the same in every run.

Words come from the shipped model's vocabulary, frequent ones often (Zipf's law, its constants such
that a document holds about as many different words as a Usenet post of its length), one in 30 is in
no vocabulary, and every tenth document holds a word that is not ASCII: classification has as much
to do as with real text. Both sides of a comparison get the same bytes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import orjson

from models.artifact import ARRAY_FILES, DEFAULT_PATH, WORDS_FILE

SEED = 7
STREAM_WORDS = 200_000
SENTENCE_WORDS = 12
NOT_ASCII = "naïve"
ZIPF_EXPONENT = 1.2
ZIPF_SHIFT = 5
UNKNOWN_EVERY = 30


@lru_cache(maxsize=1)
def stream() -> Sequence[str]:
    """Return a long text as its words, from which documents are cut."""
    chosen = random.Random(SEED)  # noqa: S311  (repeatable, not secret)
    words = _vocabulary()
    weights = list(accumulate((rank + ZIPF_SHIFT) ** -ZIPF_EXPONENT for rank in range(len(words))))
    drawn = chosen.choices(words, cum_weights=weights, k=STREAM_WORDS)
    for position in range(0, STREAM_WORDS, UNKNOWN_EVERY):
        drawn[position] = f"x{chosen.getrandbits(48):012x}"
    return [_in_sentence(position, word) for position, word in enumerate(drawn)]


def documents(words: int) -> Iterator[str]:
    """Yield documents of so many words without end; the n-th is always the same."""
    text = stream()
    chosen = random.Random(SEED + words)  # noqa: S311  (likewise)
    number = 0
    while True:
        number += 1
        start = chosen.randrange(len(text) - words)
        ending = f" {NOT_ASCII}" if number % 10 == 0 else ""
        yield f"document {number} {' '.join(text[start : start + words])}{ending}"


def take(count: int, words: int) -> list[str]:
    """Return the first documents of so many words."""
    return list(islice(documents(words), count))


def write_ndjson(file: Path, count: int, words: int, ids: Iterator[str] | None = None) -> int:
    """Write the first documents as NDJSON.

    Args:
        file: is replaced.
        count: how many.
        words: in each.
        ids: given to the documents; without it the service makes them.

    Returns:
        The size in bytes.
    """
    with file.open("wb") as output:
        for text in islice(documents(words), count):
            line = {"content": text} if ids is None else {"id": next(ids), "content": text}
            output.write(orjson.dumps(line) + b"\n")
        return output.tell()


def _vocabulary() -> list[str]:
    """Return the model's plain words, the most frequent first."""
    words = (DEFAULT_PATH / WORDS_FILE).read_text(encoding="utf-8").split()
    idf = np.load(DEFAULT_PATH / ARRAY_FILES["idf"]).tolist()
    plain = [one for one in zip(idf, words, strict=True) if one[1].isascii() and one[1].isalpha()]
    return [word for _, word in sorted(plain)]


def _in_sentence(position: int, word: str) -> str:
    if position % SENTENCE_WORDS == 0:
        return word.capitalize()
    return f"{word}." if position % SENTENCE_WORDS == SENTENCE_WORDS - 1 else word
