"""``python -m models.train``: a model from your own labelled texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from app.domain.errors import DocyardError
from models.artifact import load, save
from models.data import Example, read_examples, require_labels
from models.evaluate import score, stripped

TEST_EVERY = 5
"""Where the data does not divide itself, every fifth text of each label is held out for scores."""


def train(source: str, out: Path, *, name: str) -> None:
    """Train on labelled texts, print and keep the scores, write model and manifest.

    Raises:
        DataInvalid: the texts cannot be used; says where.
    """
    from models.fit import fit  # noqa: PLC0415  (scikit-learn: after the quick checks)

    examples = read_examples(source)
    learnt, held_out = divide(examples)
    require_labels(learnt)
    # Found out now, and not behind minutes of fitting.
    out.mkdir(parents=True, exist_ok=True)
    fitted = fit(learnt, typer.echo)
    facts = {
        "name": name,
        "data": {
            "source": Path(source).name,
            "train": len(learnt),
            "test": len(held_out),
            "sha256": _digest(learnt),
        },
        "parameters": {
            "svm_share": fitted.svm_share,
            "temperature": round(fitted.temperature, 4),
            "threshold": fitted.threshold,
        },
    }
    manifest = save(out, fitted.pipeline, scores={}, **facts)
    if held_out:
        classifier = load(out)
        scores = {
            "whole": score(classifier, held_out),
            "stripped": score(classifier, stripped(held_out)),
        }
        for form, values in scores.items():
            typer.echo(f"{form:9} " + "  ".join(f"{key} {value}" for key, value in values.items()))
        manifest = save(out, fitted.pipeline, scores=scores, **facts)
    typer.echo(f"wrote {out} ({manifest.version}); use it with MODEL_PATH={out}")


def divide(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Return what to learn and what to hold out; small labels are learnt whole."""
    if any(example.split == "test" for example in examples):
        return (
            [example for example in examples if example.split != "test"],
            [example for example in examples if example.split == "test"],
        )
    seen: dict[str, int] = {}
    learnt: list[Example] = []
    held_out: list[Example] = []
    for example in examples:
        seen[example.label] = seen.get(example.label, 0) + 1
        (learnt if seen[example.label] % TEST_EVERY else held_out).append(example)
    return learnt, held_out


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.label}\0{example.text}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()


def main(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with one sub-folder per label, NDJSON or CSV with text and label"
            " (.gz, .xz too), or 20newsgroups to fetch these."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write the model to.")] = Path("my-model"),
    name: Annotated[str, typer.Option(help="Shown in each prediction's model version.")] = "model",
) -> None:
    """Train a classifier, print its scores on held-out texts, and write it."""
    try:
        train(source, out, name=name)
    except (DocyardError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
