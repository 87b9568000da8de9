"""Fitting: one linear model, the scaled mean of a linear SVM and a complement naive Bayes.

Each text is learnt twice, whole and stripped of headers, quotes and signature, so that one model
serves both. How much of each half, and the temperature of the probabilities, come from
cross-validation on the training texts alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize_scalar
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import chi2
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from models.data import DataInvalid, Example, strip_message

TOKEN_PATTERN = r"(?u)\b\w\w+\b"  # noqa: S105  (a pattern of words)
MAX_FEATURES = 60_000
SVM_C = 0.4
BAYES_ALPHA = 0.3
SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)
FOLDS = 5

Floats = NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model and what was chosen for it on the training texts.

    Attributes:
        pipeline: ``TfidfVectorizer`` and a ``LogisticRegression`` that carries the weights.
        svm_share: weight of the SVM's half.
        temperature: divides decision values before they become probabilities.
        threshold: confidence from which on nine in ten were right in cross-validation.
    """

    pipeline: Pipeline
    svm_share: float
    temperature: float
    threshold: float


@dataclass(frozen=True, slots=True)
class _Weights:
    coef: Floats
    intercept: Floats


def fit(examples: Sequence[Example], say: Say) -> Fitted:
    """Fit a model. Deterministic for the same examples and libraries."""
    texts, labels, groups = _twice(examples)
    classes = np.unique(labels)
    say(f"{len(examples)} texts, {len(texts)} with their stripped forms, {len(classes)} labels")
    share, temperature, threshold = _choose(texts, labels, groups, classes, say)
    vectorizer, matrix = _vectorize(texts, labels)
    halves = _fit_halves(matrix, labels, classes)
    weights = _mix(halves, share)
    say(f"{matrix.shape[1]} words")
    return Fitted(
        _pipeline(vectorizer, weights, classes, temperature), share, temperature, threshold
    )


def _twice(examples: Sequence[Example]) -> tuple[list[str], NDArray[Any], NDArray[np.int64]]:
    texts, labels, groups = [], [], []
    for group, example in enumerate(examples):
        for text in dict.fromkeys((example.text, strip_message(example.text))):
            texts.append(text)
            labels.append(example.label)
            groups.append(group)
    return texts, np.array(labels), np.array(groups)


def _vectorize(texts: Sequence[str], labels: NDArray[Any]) -> tuple[TfidfVectorizer, Any]:
    least = 2 if len(texts) >= 200 else 1  # noqa: PLR2004  (below, a word seen once still counts)
    counter = CountVectorizer(token_pattern=TOKEN_PATTERN, min_df=least)
    try:
        counts = counter.fit_transform(texts)
    except ValueError:
        message = "there is nothing to learn from: too few texts have words of two characters"
        raise DataInvalid(message) from None
    words = counter.get_feature_names_out()
    if len(words) > MAX_FEATURES:
        scores = np.nan_to_num(chi2(counts, labels)[0])
        words = words[np.sort(np.argsort(-scores, kind="stable")[:MAX_FEATURES])]
    vectorizer = TfidfVectorizer(
        token_pattern=TOKEN_PATTERN,
        sublinear_tf=True,
        vocabulary={word: index for index, word in enumerate(words)},
        dtype=np.float32,
    )
    return vectorizer, vectorizer.fit_transform(texts)


def _fit_halves(matrix: Any, labels: NDArray[Any], classes: NDArray[Any]) -> list[_Weights]:
    """Fit both and scale each to a standard deviation of 1 on its own training decisions."""
    svm = LinearSVC(C=SVM_C, random_state=0).fit(matrix, labels)
    bayes = ComplementNB(alpha=BAYES_ALPHA).fit(matrix, labels)
    coef, intercept = svm.coef_, svm.intercept_
    if len(classes) == 2:  # noqa: PLR2004  (scikit-learn keeps one row for two classes)
        coef, intercept = np.vstack([-coef, coef]), np.concatenate([-intercept, intercept])
    halves = [
        _Weights(coef, intercept),
        _Weights(bayes.feature_log_prob_, np.zeros(len(classes))),
    ]
    return [_scaled(half, matrix) for half in halves]


def _scaled(weights: _Weights, matrix: Any) -> _Weights:
    # Moving all classes alike changes no decision, so each word's mean is taken out first.
    coef = weights.coef - weights.coef.mean(axis=0)
    intercept = weights.intercept - weights.intercept.mean()
    deviation = float(np.std(matrix @ coef.T + intercept)) or 1.0
    return _Weights(coef / deviation, intercept / deviation)


def _mix(halves: Sequence[_Weights], svm_share: float) -> _Weights:
    svm, bayes = halves
    return _Weights(
        svm_share * svm.coef + (1 - svm_share) * bayes.coef,
        svm_share * svm.intercept + (1 - svm_share) * bayes.intercept,
    )


def _choose(
    texts: Sequence[str],
    labels: NDArray[Any],
    groups: NDArray[np.int64],
    classes: NDArray[Any],
    say: Say,
) -> tuple[float, float, float]:
    """Choose share, temperature and threshold out of fold.

    Folds are blocks in the order of the texts: neighbours often answer each other, and a text
    whose answer was learnt looks easier than one from next month.
    """
    first = np.unique(groups, return_index=True)[1]
    folds = min(FOLDS, int(np.unique(labels[first], return_counts=True)[1].min()))
    decisions = {share: np.zeros((len(texts), len(classes))) for share in SHARES}
    everything = np.array(texts, dtype=object)
    for number, (_, held_out) in enumerate(
        StratifiedKFold(folds).split(first, labels[first]), start=1
    ):
        test = np.isin(groups, held_out)
        vectorizer, matrix = _vectorize(list(everything[~test]), labels[~test])
        halves = _fit_halves(matrix, labels[~test], classes)
        unseen = vectorizer.transform(everything[test])
        for share in SHARES:
            weights = _mix(halves, share)
            decisions[share][test] = unseen @ weights.coef.T + weights.intercept
        say(f"fold {number} of {folds}")
    targets = np.searchsorted(classes, labels)
    rates = {share: float((d.argmax(axis=1) == targets).mean()) for share, d in decisions.items()}
    share = max(SHARES, key=lambda one: (rates[one], -abs(one - 0.5)))
    say(f"cross-validated accuracy {rates[share]:.3f} with the SVM's share at {share}")
    temperature = _temperature(decisions[share], targets)
    return share, temperature, _threshold(decisions[share] / temperature, targets)


def _temperature(decisions: Floats, targets: NDArray[np.int64]) -> float:
    """Return the temperature at which held-out texts are least surprising."""

    def surprise(logarithm: float) -> float:
        chosen = _log_softmax(decisions / np.exp(logarithm))[np.arange(len(targets)), targets]
        return -float(chosen.mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(-4, 4), method="bounded").x))


def _threshold(decisions: Floats, targets: NDArray[np.int64], *, right: float = 0.9) -> float:
    """Return the lowest confidence from which on the share ``right`` was right, held out."""
    confidence = np.exp(_log_softmax(decisions)).max(axis=1)
    correct = decisions.argmax(axis=1) == targets
    for threshold in np.arange(0.05, 1.0, 0.01):
        kept = confidence >= threshold
        if kept.any() and correct[kept].mean() >= right:
            return round(float(threshold), 2)
    return 1.0


def _log_softmax(values: Floats) -> Floats:
    shifted = values - values.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _pipeline(
    vectorizer: TfidfVectorizer, weights: _Weights, classes: NDArray[Any], temperature: float
) -> Pipeline:
    """Put the weights into scikit-learn's own classes, so that nothing of ours is pickled."""
    coef, intercept = weights.coef / temperature, weights.intercept / temperature
    if len(classes) == 2:  # noqa: PLR2004  (scikit-learn keeps one row for two classes)
        coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
    linear = LogisticRegression()
    # Fitted on a toy only to set what `fit` sets; its weights are then ours.
    linear.fit(sparse.eye(len(classes), coef.shape[1], format="csr", dtype=np.float32), classes)
    linear.coef_ = np.ascontiguousarray(coef, dtype=np.float32)
    linear.intercept_ = intercept.astype(np.float32)
    return Pipeline([("tfidf", vectorizer), ("linear", linear)])
