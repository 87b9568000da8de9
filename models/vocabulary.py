"""Words to columns, a chunk of texts at a time and without an object per word.

Each word has a 64-bit hash: its bytes as the digits of a number, to an odd base, modulo 2^64. From
the running sum of digit by base^-position the hashes of all words of a text follow by subtraction,
so numpy computes them together; a table with open addressing turns them into columns. A dictionary
of the same words costs three times as much per word, and ten times the memory in each process.

Two words may share a hash. Among some ten thousand words that is noticed when the table is made; a
word of no vocabulary is taken for one of it about once in 10^14.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"(?u)\b\w\w+\b")
"""scikit-learn's: words of two characters or more."""
MISSING = -1
BLOCK_BYTES = 1 << 16
"""Hashed together; larger arrays would not stay in the processor's cache."""

_SPACE = ord(" ")
# For ASCII bytes: lower case, and a space for whatever is no word character. What lies between
# spaces is the words of WORD, and single characters besides, which no vocabulary holds.
_WORD_BYTES = bytes(
    byte if chr(byte).isalnum() or byte == ord("_") else _SPACE
    for byte in (ord(chr(code).lower()) if code < 128 else _SPACE for code in range(256))  # noqa: PLR2004  (ASCII)
)
_BASE = 0x9E3779B97F4A7C15
_MODULUS = 1 << 64
_MIX = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


def _powers(base: int) -> NDArray[np.uint64]:
    found = np.empty(BLOCK_BYTES, dtype=np.uint64)
    power = 1
    for exponent in range(BLOCK_BYTES):
        found[exponent] = power
        power = power * base % _MODULUS
    return found


_POWERS = _powers(_BASE)
_INVERSE_POWERS = _powers(pow(_BASE, -1, _MODULUS))


class Vocabulary:
    """The words that a model knows, by their columns."""

    def __init__(self, words: Sequence[str]) -> None:
        """Make the table.

        Args:
            words: lower case; each word's place is its column.

        Raises:
            ValueError: a word occurs twice, or shares its hash with another one.
        """
        self.size = len(words)
        # Words that are longer than a block would be cut; no text is found to hold them anyway.
        hashes = _hashes_of([word.encode()[: BLOCK_BYTES - 1] for word in words])
        if len(np.unique(hashes)) != len(words):
            message = "words of the vocabulary are the same or share a hash"
            raise ValueError(message)
        bits = max(8, (4 * len(words)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._last_slot = (1 << bits) - 1
        self._hashes = np.zeros(1 << bits, dtype=np.uint64)
        self._columns = np.full(1 << bits, MISSING, dtype=np.int32)
        self._fill(hashes)

    def look_up(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the words of texts that are known, in order.

        Returns:
            For each occurrence its text (its place among ``texts``) and its column.
        """
        rows: list[NDArray[np.int64]] = []
        columns: list[NDArray[np.int32]] = []
        for first, block in _blocks([_words(text) for text in texts]):
            starts, hashes = _hash(b" ".join(block))
            ends = np.cumsum([len(part) + 1 for part in block])
            found = self._find(hashes)
            known = np.flatnonzero(found != MISSING)
            rows.append(first + np.searchsorted(ends, starts[known], side="right"))
            columns.append(found[known])
        if not rows:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
        return np.concatenate(rows), np.concatenate(columns)

    def _fill(self, hashes: NDArray[np.uint64]) -> None:
        slots, waiting = self._slots(hashes), np.arange(len(hashes))
        while len(waiting):
            free = waiting[self._columns[slots[waiting]] == MISSING]
            taken, first = np.unique(slots[free], return_index=True)
            self._columns[taken] = free[first]
            self._hashes[taken] = hashes[free[first]]
            waiting = waiting[self._hashes[slots[waiting]] != hashes[waiting]]
            slots[waiting] = (slots[waiting] + 1) & self._last_slot

    def _find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        slots = self._slots(hashes)
        found = self._columns[slots]
        other = np.flatnonzero((found != MISSING) & (self._hashes[slots] != hashes))
        while len(other):
            slots[other] = (slots[other] + 1) & self._last_slot
            found[other] = self._columns[slots[other]]
            wrong = (found[other] != MISSING) & (self._hashes[slots[other]] != hashes[other])
            other = other[wrong]
        return found

    def _slots(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        # The upper bits depend on every digit, the lower ones of the hash only on some.
        mixed = (hashes ^ (hashes >> _HALF)) * _MIX
        return (mixed >> self._shift).astype(np.int64)


def _words(text: str) -> bytes:
    """Return the words of a text between spaces, lower case, as UTF-8."""
    if text.isascii():
        return text.encode().translate(_WORD_BYTES)
    return " ".join(WORD.findall(text.lower())).encode(errors="surrogatepass")


def _blocks(texts: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
    """Gather texts into blocks, each with the place of its first text; cut what is too long."""
    blocks: list[tuple[int, list[bytes]]] = []
    room = 0
    for place, text in enumerate(texts):
        for part in _parts(text):
            # A block's rows are counted from its first text, so each text is in it once.
            again = blocks and blocks[-1][0] + len(blocks[-1][1]) != place
            if again or len(part) >= min(room, BLOCK_BYTES):
                blocks.append((place, []))
                room = BLOCK_BYTES
            blocks[-1][1].append(part)
            room -= len(part) + 1
    return blocks


def _parts(text: bytes) -> list[bytes]:
    """Cut a text between words so that each part fits a block.

    A word that fills a block (an encoded file, say) is left out: it is in no vocabulary, and its
    last piece by itself might be.
    """
    parts = []
    begin = 0
    while len(text) - begin > BLOCK_BYTES:
        cut = text.rfind(b" ", begin + 1, begin + BLOCK_BYTES)
        if cut < 0:
            behind = text.find(b" ", begin + BLOCK_BYTES)
            begin = len(text) if behind < 0 else behind
        else:
            parts.append(text[begin:cut])
            begin = cut
    parts.append(text[begin:])
    return parts


def _hash(words: bytes) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return where each word begins, and its hash; ``words`` fit a block."""
    digits = np.frombuffer(words, dtype=np.uint8)
    count = len(digits)
    inside = digits != _SPACE
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    if count and inside[0]:
        edges = np.r_[0, edges]
    if len(edges) % 2:
        edges = np.r_[edges, count]
    starts, ends = edges[0::2], edges[1::2]
    sums = np.zeros(count + 1, dtype=np.uint64)
    np.cumsum(digits * _INVERSE_POWERS[:count], out=sums[1:])
    return starts, (sums[ends] - sums[starts]) * _POWERS[ends - 1]


def _hashes_of(words: Sequence[bytes]) -> NDArray[np.uint64]:
    hashes = [_hash(b" ".join(block))[1] for _, block in _blocks(words)]
    return np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64)
