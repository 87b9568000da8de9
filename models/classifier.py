"""Classifying: what the fitted pipeline says, at the speed of its tokenizer or better.

scikit-learn defines the model; this computes the same from the same arrays. Its vectorizer counts
word by word in Python, which is most of its time. Here a chunk's words are looked up in one go, and
ASCII text (nearly all) is split by two C calls instead of a regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.domain.predictions import Prediction

WORD = re.compile(r"(?u)\b\w\w+\b")

# For ASCII bytes: lower case, and a space for whatever is no word character. Splitting the result
# gives the words of WORD and single characters besides, which no vocabulary holds.
_ASCII_WORDS = bytes(
    byte if chr(byte).isalnum() or byte == ord("_") else ord(" ")
    for byte in (ord(chr(code).lower()) if code < 128 else 32 for code in range(256))  # noqa: PLR2004  (ASCII)
)
MISSING = -1
PIECE_CHARACTERS = 1 << 20
"""Most characters looked up at once; bounds the memory of a chunk of large documents."""


class Classifier(Protocol):
    """Classifies texts."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The categories, in the order of the model's classes."""

    @property
    def version(self) -> str:
        """Names the model in each prediction."""

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Return one prediction per text, in order; safe from several threads."""


class LinearClassifier:
    """Tf-idf and a linear model, from the arrays of a fitted pipeline."""

    def __init__(self, pipeline: Any, version: str) -> None:
        """Take the arrays out of ``Pipeline([TfidfVectorizer, LogisticRegression])``."""
        vectorizer, linear = (step for _, step in pipeline.steps)
        self.labels = tuple(str(label) for label in linear.classes_)
        self.version = version
        self._size = len(vectorizer.vocabulary_)
        self._words: dict[str, int] = {
            word: int(index) for word, index in vectorizer.vocabulary_.items()
        }
        self._ascii_words = {
            word.encode(): index for word, index in self._words.items() if word.isascii()
        }
        self._idf: NDArray[np.float32] = vectorizer.idf_.astype(np.float32)
        coef, intercept = linear.coef_, linear.intercept_
        if len(self.labels) == 2:  # noqa: PLR2004  (scikit-learn keeps one row for two classes)
            coef = np.vstack([np.zeros_like(coef), coef])
            intercept = np.concatenate([np.zeros_like(intercept), intercept])
        # A word's weights for all classes lie together: they are read together.
        self._weights: NDArray[np.float32] = np.ascontiguousarray(coef.T, dtype=np.float32)
        self._intercept: NDArray[np.float32] = intercept.astype(np.float32)

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Return one prediction per text, in order."""
        predictions: list[Prediction] = []
        for piece in _pieces(texts):
            predictions += self._predict(piece)
        return predictions

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the probability of each label (columns) for each text (rows)."""
        rows, columns, values = self._features(texts)
        scores = np.zeros((len(texts), len(self.labels)), dtype=np.float32)
        if len(rows):
            starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
            weighted = self._weights[columns]
            weighted *= values[:, None]
            scores[rows[starts]] = np.add.reduceat(weighted, starts, axis=0)
        scores += self._intercept
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return scores

    def _predict(self, texts: Sequence[str]) -> list[Prediction]:
        probabilities = self.probabilities(texts)
        best = probabilities.argmax(axis=1)
        sure = probabilities[np.arange(len(texts)), best]
        labels, version = self.labels, self.version
        return [
            Prediction(labels[index], confidence, version)
            for index, confidence in zip(best.tolist(), sure.tolist(), strict=True)
        ]

    def _features(
        self, texts: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return text, word and normalised tf-idf of every word that occurs, in order."""
        found = [self._look_up(text) for text in texts]
        lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        words = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
        keys = np.repeat(np.arange(len(found), dtype=np.int64) * self._size, lengths) + words
        keys = keys[words != MISSING]
        keys.sort()
        first = np.flatnonzero(np.r_[len(keys) > 0, keys[1:] != keys[:-1]][: len(keys)])
        counts = np.diff(np.r_[first, len(keys)])
        rows, columns = np.divmod(keys[first], self._size)
        values = (np.log(counts.astype(np.float32)) + np.float32(1)) * self._idf[columns]
        norms = np.sqrt(np.bincount(rows, weights=values * values, minlength=len(texts)))
        return rows, columns, (values / norms[rows]).astype(np.float32)

    def _look_up(self, text: str) -> NDArray[np.int64]:
        if text.isascii():
            words: list[Any] = text.encode().translate(_ASCII_WORDS).split()
            known: dict[Any, int] = self._ascii_words
        else:
            words, known = WORD.findall(text.lower()), self._words
        return np.fromiter(map(known.get, words, repeat(MISSING)), np.int64, len(words))


class PipelineClassifier:
    """Any fitted scikit-learn pipeline with ``predict_proba``, as it is."""

    def __init__(self, pipeline: Any, version: str) -> None:
        """Keep the pipeline."""
        self.labels = tuple(str(label) for label in pipeline.classes_)
        self.version = version
        self._pipeline = pipeline

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Return one prediction per text, in order."""
        if not texts:
            return []
        probabilities = self._pipeline.predict_proba(list(texts))
        best = probabilities.argmax(axis=1)
        return [
            Prediction(self.labels[index], float(row[index]), self.version)
            for index, row in zip(best.tolist(), probabilities, strict=True)
        ]


def _pieces(texts: Sequence[str]) -> list[Sequence[str]]:
    """Cut a chunk so that no piece looks up too much at once; most chunks are one piece."""
    if sum(map(len, texts)) <= PIECE_CHARACTERS:
        return [texts] if texts else []
    pieces: list[list[str]] = []
    room = 0
    for text in texts:
        if room < len(text):
            pieces.append([])
            room = PIECE_CHARACTERS
        pieces[-1].append(text)
        room -= len(text)
    return list(chain(pieces))
