"""What an attempt's outcome says about the receiver's load."""

from __future__ import annotations

from enum import StrEnum

from app.domain.deliveries import Outcome, OutcomeKind

STRAINED_STATUSES = frozenset({408, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Answers of whoever stands in front of a receiver that does not keep up; those from 520 are what
large networks say. 500 is not among them: it is a bug's answer, and no load's."""


class Sign(StrEnum):
    """What one outcome is a sign of."""

    FINE = "fine"
    """The receiver answered; whether it liked the document is another matter."""
    REFUSED = "refused"
    """It said that there are too many requests."""
    STRAINED = "strained"
    """It did not answer, or in a way that too many requests would explain."""
    NONE = "none"
    """No request was made."""


def sign_of(outcome: Outcome) -> Sign:
    """Tell what an outcome is a sign of."""
    match outcome.kind:
        case OutcomeKind.THROTTLED:
            return Sign.REFUSED
        case OutcomeKind.TEMPORARY if outcome.status is None or outcome.status in STRAINED_STATUSES:
            return Sign.STRAINED
        case OutcomeKind.SUCCESS:  # of a collector without a status
            return Sign.FINE
        case _:
            return Sign.FINE if outcome.status is not None else Sign.NONE
