"""The trained model on disk: its files, and a manifest that vouches for them by hash.

A linear model is kept as plain numbers and words: loading it runs no code, needs no scikit-learn,
and its largest array is mapped into memory, where all ingest processes share it. Any other pipeline
is kept by joblib, which is pickle and runs code: it is loaded only when its hash is the manifest's.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.domain.errors import ModelUnusable
from models.classifier import Classifier, LinearClassifier, LinearModel, PipelineClassifier

T = TypeVar("T")
DEFAULT_PATH = Path(__file__).parent / "artifact"
FORMAT = 2
MANIFEST_FILE = "manifest.json"
PIPELINE_FILE = "pipeline.joblib"
WORDS_FILE = "words.txt"
ARRAY_FILES = {name: f"{name}.npy" for name in ("idf", "weights", "intercept")}
LINEAR_FILES = frozenset({WORDS_FILE, *ARRAY_FILES.values()})
LIBRARIES = ("scikit-learn", "numpy", "scipy", "joblib")
RETRAIN = "Train it again with the installed versions: `python -m models.train --help`."
RESTORE = "Restore the folder from where it comes from, or train it again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known of a trained model.

    Attributes:
        name: given at training.
        files: sha256 of each file.
        libraries: versions it was trained with.
        labels: the categories, in the order of the model's classes.
        data: what it was trained on.
        scores: as measured at training.
        parameters: what was chosen; ``threshold`` is the confidence below which it is uncertain.
    """

    name: str
    files: dict[str, str]
    libraries: dict[str, str]
    labels: list[str]
    data: dict[str, Any]
    scores: dict[str, Any]
    parameters: dict[str, float]
    format: int = FORMAT

    @property
    def version(self) -> str:
        """Names the model in each prediction: the same files, the same version."""
        lines = "".join(f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        return f"{self.name}-{hashlib.sha256(lines.encode()).hexdigest()[:12]}"


def save(folder: Path, pipeline: Any, **facts: Any) -> Manifest:
    """Write a model and its manifest; the manifest last, so that a torn write is noticed.

    Each file takes the place of the one before it whole: processes that use that one have it mapped
    into memory, and would die of one that is cut under them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels = [str(label) for label in pipeline.classes_]
    if is_linear(pipeline):
        model = take_apart(pipeline)
        names = _write_linear(folder, model)
    else:
        import joblib  # noqa: PLC0415  (slow; the worker imports this module early)

        with _replacing(folder / PIPELINE_FILE) as file:
            joblib.dump(pipeline, file, compress=("zlib", 9))
        names = [PIPELINE_FILE]
    files = {name: _hash(folder / name) for name in names}
    manifest = Manifest(files=files, libraries=installed(), labels=labels, **facts)
    text = json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n"
    with _replacing(folder / MANIFEST_FILE) as file:
        file.write_bytes(text.encode())
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
    except (FileNotFoundError, NotADirectoryError):
        remedy = "Set MODEL_PATH to the folder of a trained model, or train one."
        raise ModelUnusable(folder, f"it has no {MANIFEST_FILE}", remedy) from None
    except (OSError, ValueError, TypeError) as error:
        reason = f"{MANIFEST_FILE} cannot be read ({error})"
        raise ModelUnusable(folder, reason, RETRAIN) from None
    if manifest.format != FORMAT:
        reason = f"its format is {manifest.format}, this version reads {FORMAT}"
        raise ModelUnusable(folder, reason, RETRAIN)
    if not _is_well_formed(manifest):
        raise ModelUnusable(folder, f"{MANIFEST_FILE} has fields of the wrong kind", RESTORE)
    return manifest


def _is_well_formed(manifest: Manifest) -> bool:
    files, libraries, labels = manifest.files, manifest.libraries, manifest.labels
    return (
        isinstance(files, dict)
        and isinstance(libraries, dict)
        and isinstance(labels, list)
        and all(isinstance(one, str) for one in (*files.values(), *libraries.values(), *labels))
    )


def load(folder: Path) -> Classifier:
    """Load a trained model.

    Raises:
        ModelUnusable: hashes or versions do not fit; says what to do.
    """
    manifest = read_manifest(folder)
    _require_hashes(folder, manifest)
    if PIPELINE_FILE in manifest.files:
        _require_versions(folder, manifest)
        return _usable(folder, lambda: PipelineClassifier(_read_pipeline(folder), manifest.version))
    return _usable(
        folder, lambda: LinearClassifier(_read_linear(folder, manifest), manifest.version)
    )


def load_pipeline(folder: Path) -> Any:
    """Load a model as scikit-learn's pipeline, to look into it or to compare with it.

    Raises:
        ModelUnusable: hashes or versions do not fit; says what to do.
    """
    manifest = read_manifest(folder)
    _require_hashes(folder, manifest)
    if PIPELINE_FILE in manifest.files:
        _require_versions(folder, manifest)
        return _usable(folder, lambda: _read_pipeline(folder))
    return put_together(_usable(folder, lambda: _read_linear(folder, manifest)))


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


def take_apart(pipeline: Any) -> LinearModel:
    """Return the numbers and words of a pipeline that ``is_linear``."""
    vectorizer, linear = (step for _, step in pipeline.steps)
    coef, intercept = linear.coef_, linear.intercept_
    if len(linear.classes_) == 2:  # noqa: PLR2004  (scikit-learn keeps one row for two classes)
        coef = np.vstack([np.zeros_like(coef), coef])
        intercept = np.concatenate([np.zeros_like(intercept), intercept])
    columns = vectorizer.vocabulary_
    return LinearModel(
        labels=tuple(str(label) for label in linear.classes_),
        words=sorted(columns, key=columns.__getitem__),
        idf=vectorizer.idf_.astype(np.float32),
        weights=np.ascontiguousarray(coef.T, dtype=np.float32),
        intercept=intercept.astype(np.float32),
    )


def put_together(model: LinearModel) -> Any:
    """Return the scikit-learn pipeline of which a model is the numbers and words."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415  (slow)
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (likewise)
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415  (likewise)

    vocabulary = {word: column for column, word in enumerate(model.words)}
    vectorizer = TfidfVectorizer(vocabulary=vocabulary, sublinear_tf=True, dtype=np.float32)
    vectorizer.idf_ = model.idf
    linear = LogisticRegression()
    linear.classes_ = np.array(model.labels)
    linear.coef_ = np.asfortranarray(model.weights.T)
    linear.intercept_ = model.intercept
    if len(model.labels) == 2:  # noqa: PLR2004  (scikit-learn keeps one row for two classes)
        linear.coef_ = linear.coef_[1:] - linear.coef_[:1]
        linear.intercept_ = linear.intercept_[1:] - linear.intercept_[:1]
    linear.n_features_in_ = len(model.words)
    return make_pipeline(vectorizer, linear)


def _write_linear(folder: Path, model: LinearModel) -> list[str]:
    with _replacing(folder / WORDS_FILE) as words:
        words.write_bytes("\n".join(model.words).encode())
    for name, file in ARRAY_FILES.items():
        with _replacing(folder / file) as array, array.open("wb") as stream:
            np.save(stream, getattr(model, name), allow_pickle=False)
    return [WORDS_FILE, *ARRAY_FILES.values()]


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Lend a name to write to, and put what was written in place of a file."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _read_linear(folder: Path, manifest: Manifest) -> LinearModel:
    def array(name: str) -> NDArray[np.float32]:
        # Mapped, so that processes share it. Copied once, each would have 5 MB of its own.
        found: NDArray[np.float32] = np.load(
            folder / ARRAY_FILES[name], mmap_mode="r", allow_pickle=False
        )
        return found

    words = (folder / WORDS_FILE).read_text(encoding="utf-8").split("\n")
    return LinearModel(
        labels=tuple(manifest.labels),
        words=words if words != [""] else [],
        **{name: array(name) for name in ARRAY_FILES},
    )


def _read_pipeline(folder: Path) -> Any:
    import joblib  # noqa: PLC0415  (slow; only when such a model is loaded)

    return joblib.load(folder / PIPELINE_FILE)


def _usable(folder: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except Exception as error:
        # A pipeline is code, of modules that may not be here: it raises whatever it likes.
        raise ModelUnusable(folder, str(error) or type(error).__name__, RESTORE) from error


def _require_hashes(folder: Path, manifest: Manifest) -> None:
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise ModelUnusable(folder, f"its manifest names {name!r}, a file elsewhere", RESTORE)
        try:
            found = _hash(folder / name)
        except OSError as error:
            reason = f"{name} cannot be read ({error.strerror})"
            raise ModelUnusable(folder, reason, RETRAIN) from None
        if found != expected:
            reason = f"{name} is not the file that its manifest vouches for (sha256 differs)"
            raise ModelUnusable(folder, reason, RESTORE)
    if PIPELINE_FILE not in manifest.files and not manifest.files.keys() >= LINEAR_FILES:
        raise ModelUnusable(folder, "its manifest does not vouch for all its files", RESTORE)


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
