"""``python -m models.evaluate``: how good a model is on labelled texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from app.domain.errors import DocyardError
from app.domain.predictions import Prediction
from models.artifact import DEFAULT_PATH, load
from models.classifier import Classifier
from models.data import DataInvalid, Example, read_examples, strip_message

BATCH = 256
BINS = 15


def score(classifier: Classifier, examples: Sequence[Example]) -> dict[str, float]:
    """Return accuracy, macro-F1 and expected calibration error on labelled texts."""
    predictions: list[Prediction] = []
    for start in range(0, len(examples), BATCH):
        batch = examples[start : start + BATCH]
        predictions += classifier.classify([example.text for example in batch])
    truth = np.array([example.label for example in examples])
    said = np.array([prediction.category for prediction in predictions])
    confidence = np.array([prediction.confidence for prediction in predictions])
    return {
        "texts": len(examples),
        "accuracy": round(float((truth == said).mean()), 4),
        "macro_f1": round(_macro_f1(truth, said), 4),
        "calibration_error": round(calibration_error(truth == said, confidence), 4),
    }


def stripped(examples: Sequence[Example]) -> list[Example]:
    """Return the examples without headers, quotes and signatures."""
    return [Example(strip_message(one.text), one.label, one.split) for one in examples]


def calibration_error(right: NDArray[np.bool_], confidence: NDArray[np.float64]) -> float:
    """Return the expected calibration error: mean gap of confidence and accuracy, in 15 bins."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        (bins == one).mean() * abs(right[bins == one].mean() - confidence[bins == one].mean())
        for one in np.unique(bins)
    ]
    return float(sum(gaps))


def _macro_f1(truth: NDArray[np.str_], said: NDArray[np.str_]) -> float:
    scores = []
    for label in np.unique(truth):
        both = ((truth == label) & (said == label)).sum()
        scores.append(2 * both / ((truth == label).sum() + (said == label).sum()))
    return float(np.mean(scores))


def main(
    source: Annotated[str, typer.Argument(help="Labelled texts: folder, NDJSON, CSV.")],
    model: Annotated[Path, typer.Option(help="Folder of the model.")] = DEFAULT_PATH,
) -> None:
    """Print how good a model is; of divided data, on the part named test."""
    try:
        examples = read_examples(source)
        if not examples:
            message = f"{source} has no texts"
            raise DataInvalid(message)
        test = [example for example in examples if example.split == "test"] or examples
        classifier = load(model)
    except (DocyardError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    typer.echo(f"model     {classifier.version}")
    for name, texts in (("whole", test), ("stripped", stripped(test))):
        typer.echo(
            f"{name:9} " + "  ".join(f"{k} {v}" for k, v in score(classifier, texts).items())
        )


if __name__ == "__main__":
    typer.run(main)
