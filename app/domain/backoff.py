"""When to try again: the ladder, jitter, and what a receiver asks for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR

LADDER_SECONDS: tuple[float, ...] = (
    5.0,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
)
"""Delay behind the first attempt, the second, … (Standard Webhooks' example schedule)."""


def jittered(seconds: float, jitter: float, random: Callable[[], float]) -> float:
    """Spread a delay over ± ``jitter``, so that what failed together does not return together.

    Args:
        seconds: the delay.
        jitter: share of it, 0.2 for ±20 %.
        random: returns a number in [0, 1).
    """
    return seconds * (1 + jitter * (2 * random() - 1))


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110, 10.2.3): seconds or an HTTP date.

    Returns:
        Seconds from ``now``, never negative; None when there is nothing that can be read.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # Longer numbers exceed any bound anyway, and int() refuses them from some thousand digits.
        return float(value[:12])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
