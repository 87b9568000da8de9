"""The trained model on disk: a joblib file, and a manifest that vouches for it.

joblib is pickle, which runs code: a file is loaded only when its hash is the manifest's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from app.domain.errors import ModelUnusable
from models.classifier import Classifier, LinearClassifier, PipelineClassifier

DEFAULT_PATH = Path(__file__).parent / "artifact"
FORMAT = 1
MODEL_FILE = "model.joblib"
MANIFEST_FILE = "manifest.json"
LIBRARIES = ("scikit-learn", "numpy", "scipy", "joblib")
RETRAIN = "Train it again with the installed versions: `python -m models.train --help`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known of a trained model.

    Attributes:
        name: given at training.
        sha256: of the model file.
        libraries: versions it was trained with.
        labels: the categories.
        data: what it was trained on.
        scores: as measured at training.
        parameters: what was chosen; ``threshold`` is the confidence below which it is uncertain.
    """

    name: str
    sha256: str
    libraries: dict[str, str]
    labels: list[str]
    data: dict[str, Any]
    scores: dict[str, Any]
    parameters: dict[str, float]
    format: int = FORMAT

    @property
    def version(self) -> str:
        """Names the model in each prediction."""
        return f"{self.name}-{self.sha256[:12]}"


def save(folder: Path, pipeline: Any, **facts: Any) -> Manifest:
    """Write a model and its manifest; the manifest last, so that a torn write is noticed."""
    import joblib  # noqa: PLC0415  (slow; the worker imports this module early)

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / MODEL_FILE
    joblib.dump(pipeline, file, compress=("zlib", 9))
    manifest = Manifest(sha256=_hash(file), libraries=installed(), **facts)
    text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read a model's manifest.

    Raises:
        ModelUnusable: there is none, or it is not one.
    """
    file = folder / MANIFEST_FILE
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        manifest = Manifest(**fields)
    except FileNotFoundError:
        remedy = "Set MODEL_PATH to the folder of a trained model, or train one."
        raise ModelUnusable(folder, f"it has no {MANIFEST_FILE}", remedy) from None
    except (ValueError, TypeError) as error:
        reason = f"{MANIFEST_FILE} cannot be read ({error})"
        raise ModelUnusable(folder, reason, RETRAIN) from None
    if manifest.format != FORMAT:
        reason = f"its format is {manifest.format}, this version reads {FORMAT}"
        raise ModelUnusable(folder, reason, RETRAIN)
    return manifest


def load(folder: Path) -> Classifier:
    """Load a trained model.

    Raises:
        ModelUnusable: hash or versions do not fit; says what to do.
    """
    manifest = read_manifest(folder)
    file = folder / MODEL_FILE
    try:
        found = _hash(file)
    except OSError as error:
        reason = f"{MODEL_FILE} cannot be read ({error.strerror})"
        raise ModelUnusable(folder, reason, RETRAIN) from None
    if found != manifest.sha256:
        reason = f"{MODEL_FILE} is not the file that its manifest vouches for (sha256 differs)"
        remedy = "Restore both files from where they come from, or train it again."
        raise ModelUnusable(folder, reason, remedy)
    _require_versions(folder, manifest)
    import joblib  # noqa: PLC0415  (slow; only when a model is loaded)

    pipeline = joblib.load(file)
    if is_linear(pipeline):
        return LinearClassifier(pipeline, manifest.version)
    return PipelineClassifier(pipeline, manifest.version)


def installed() -> dict[str, str]:
    """Return the versions of the libraries that a model depends on."""
    return {name: metadata.version(name) for name in LIBRARIES}


def is_linear(pipeline: Any) -> bool:
    """Tell whether the pipeline is of the form that ``LinearClassifier`` computes."""
    steps = getattr(pipeline, "steps", [])
    if [type(step).__name__ for _, step in steps] != ["TfidfVectorizer", "LogisticRegression"]:
        return False
    wanted = {
        "sublinear_tf": True,
        "norm": "l2",
        "use_idf": True,
        "lowercase": True,
        "ngram_range": (1, 1),
        "token_pattern": r"(?u)\b\w\w+\b",
        "binary": False,
        "stop_words": None,
        "strip_accents": None,
        "preprocessor": None,
        "tokenizer": None,
        "analyzer": "word",
    }
    parameters = steps[0][1].get_params()
    return all(parameters[name] == value for name, value in wanted.items())


def _require_versions(folder: Path, manifest: Manifest) -> None:
    """scikit-learn promises nothing between minor versions, so these must be the same."""
    for name, version in installed().items():
        trained = manifest.libraries.get(name, "none")
        if _minor(trained) != _minor(version):
            reason = f"it was trained with {name} {trained}, installed is {version}"
            remedy = f"Install {name}=={trained}, or train it again: `python -m models.train`."
            raise ModelUnusable(folder, reason, remedy)


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
