"""What a collector's answer means for its delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from pydantic import BaseModel

from app.domain.calls import CallFailed
from app.domain.collectors import MAX_RESULT_BYTES, Error, Ok
from app.domain.deliveries import Outcome, OutcomeKind
from app.domain.text import clean, sentence_of

LOG = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of a run.

    Attributes:
        value: JSON to be kept with a success.
        final: no other attempt is to be made.
    """

    outcome: Outcome
    value: str | None = None
    final: bool = False


def ended_by(answer: object, key: str, seconds: float) -> Ended:
    """Return what an answer, or an exception instead of one, comes to.

    Args:
        answer: what the function returned or raised.
        key: of the collector.
        seconds: that it took.
    """
    match answer:
        case Ok(value=value):
            return _success(value, seconds)
        case Error():
            return _failure(answer, seconds)
        case CallFailed():
            # It has failed for good, and a run anew would hear the same.
            return _failure(Error(str(answer), permanent=True), seconds)
        case BaseException():
            LOG.warning("collector.raised", key=key, exc_info=answer)
            return _failure(Error(sentence_of(answer)), seconds)
        case _:
            sentence = f"it returned {type(answer).__name__}, and neither Ok nor Error"
            return _failure(Error(sentence), seconds)


def ended_in_time(sentence: str, seconds: float) -> Ended:
    """Return what a run comes to that was stopped from outside."""
    return _failure(Error(sentence), seconds)


def _success(value: Any, seconds: float) -> Ended:
    try:
        encoded = orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, RecursionError) as error:
        return _failure(Error(f"its value is not JSON: {error}"), seconds)
    fits = len(encoded) <= MAX_RESULT_BYTES
    note = f"its value of {len(encoded)} bytes was not kept: {MAX_RESULT_BYTES} is the most"
    outcome = Outcome(
        kind=OutcomeKind.SUCCESS, error=None if fits else note, duration_seconds=seconds
    )
    return Ended(outcome=outcome, value=encoded.decode() if fits else None)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written")


def _failure(error: Error, seconds: float) -> Ended:
    if error.permanent:
        kind = OutcomeKind.PERMANENT
    elif error.retry_after is not None:
        kind = OutcomeKind.THROTTLED
    else:
        kind = OutcomeKind.TEMPORARY
    outcome = Outcome(
        kind=kind,
        error=clean(str(error.reason)),
        retry_after_seconds=error.retry_after_seconds,
        duration_seconds=seconds,
    )
    return Ended(outcome=outcome, final=error.permanent)
