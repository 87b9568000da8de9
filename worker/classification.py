"""The model in an ingest process: loaded once and late, and optional."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import structlog

from app.domain.errors import ModelUnusable
from app.domain.predictions import Prediction
from worker.under_way import UnderWay

LOG = structlog.get_logger(__name__)
RETRY_LOAD_SECONDS = 30.0


class Classifier(Protocol):
    """What the ingest needs of a model."""

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        """Return one prediction per text, in order."""


class ModelHolder:
    """Loads the model at its first use, under a lock; without one, documents go unclassified.

    Importing scikit-learn costs a second and most of the process's memory, so nothing else in the
    worker imports it.

    Attributes:
        calls: those of the model that are under way; it is the user's, and may hang.
    """

    def __init__(self, path: Path) -> None:
        self.calls = UnderWay()
        self._path = path
        self._lock = threading.Lock()
        self._classifier: Classifier | None = None
        self._retry_at = 0.0

    def classify(self, texts: Sequence[str]) -> list[Prediction | None]:
        """Classify a chunk in one call; None for each text while there is no usable model."""
        classifier = self._load()
        if classifier is None:
            return [None] * len(texts)
        LOG.debug("model.called", texts=len(texts))
        with self.calls.call():
            return list(classifier.classify(texts))

    def usable(self) -> bool:
        """Tell whether there is a model; loads it if that was not tried yet."""
        return self._load() is not None

    def _load(self) -> Classifier | None:
        with self._lock:
            if self._classifier is None and time.monotonic() >= self._retry_at:
                try:
                    self._classifier = load_classifier(self._path)
                except ModelUnusable as error:
                    self._retry_at = time.monotonic() + RETRY_LOAD_SECONDS
                    LOG.error("model.unusable", reason=str(error))  # noqa: TRY400  (a sentence, no trace)
            return self._classifier


def load_classifier(path: Path) -> Classifier:
    """Load the model from its folder.

    Raises:
        ModelUnusable: says why, and what to do.
    """
    from models.artifact import load  # noqa: PLC0415  (scikit-learn only where it is needed)

    return load(path)
