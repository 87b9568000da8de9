"""What a model says of a document."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prediction:
    """A category with how sure the model is of it.

    Attributes:
        category: one of the model's labels.
        confidence: calibrated probability of the category, 0 to 1.
        model_version: which model said so.
    """

    category: str
    confidence: float
    model_version: str
