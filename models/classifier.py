"""Classifying: what the fitted pipeline says, at twice the speed of its tokenizer.

scikit-learn defines the model; this computes the same from the same numbers, a chunk at a time and
without scikit-learn, which would cost every ingest process a second and 100 MB to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.domain.predictions import Prediction
from models.vocabulary import Vocabulary

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearModel:
    """Tf-idf and a linear model over V words and C labels, as numbers.

    Attributes:
        words: V words, lower case.
        idf: (V,) inverse document frequencies.
        weights: (V, C); a word's weights for all labels lie together, as they are read.
        intercept: (C,).
    """

    labels: tuple[str, ...]
    words: Sequence[str]
    idf: NDArray[np.float32]
    weights: NDArray[np.float32]
    intercept: NDArray[np.float32]


class LinearClassifier:
    """Computes a linear model: sublinear tf-idf, rows of length 1, softmax of the scores."""

    def __init__(self, model: LinearModel, version: str) -> None:
        """Make the table of words.

        Raises:
            ValueError: the model's arrays do not fit together.
        """
        shape = (len(model.words), len(model.labels))
        if (model.weights.shape, model.idf.shape, model.intercept.shape) != (
            shape,
            shape[:1],
            shape[1:],
        ):
            message = "its arrays do not fit together"
            raise ValueError(message)
        self.labels = model.labels
        self.version = version
        self._vocabulary = Vocabulary(model.words)
        self._idf = model.idf
        self._weights = model.weights
        self._intercept = model.intercept

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
        size = self._vocabulary.size
        rows, columns = self._vocabulary.look_up(texts)
        keys = rows * size + columns
        keys.sort()
        first = np.flatnonzero(np.r_[len(keys) > 0, keys[1:] != keys[:-1]][: len(keys)])
        counts = np.diff(np.r_[first, len(keys)])
        rows, words = np.divmod(keys[first], size)
        values = (np.log(counts.astype(np.float32)) + np.float32(1)) * self._idf[words]
        norms = np.sqrt(np.bincount(rows, weights=values * values, minlength=len(texts)))
        return rows, words, (values / norms[rows]).astype(np.float32)


class PipelineClassifier:
    """Any fitted scikit-learn pipeline with ``predict_proba``, as it is."""

    def __init__(self, pipeline: Any, version: str) -> None:
        """Keep the pipeline.

        Raises:
            ValueError: it has no probabilities.
        """
        if not hasattr(pipeline, "predict_proba"):
            message = "its pipeline has no predict_proba"
            raise ValueError(message)
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
