"""What Postgres cannot hold, found at the door and named by place.

Postgres ``text`` cannot hold NUL, UTF-8 cannot hold lone surrogates, and ``jsonb`` refuses both,
numbers beyond its range and nesting of some thousand levels. A document that carried one of these
past the door would fail in the database, long after the 202.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from app.domain.errors import Violation

MAX_DEPTH = 32
MAX_INTEGER = 2**63 - 1
MAX_REASON_LENGTH = 500
MAX_STEP_LENGTH = 200
"""Of a key within a pointer."""


def text_fault(text: str) -> str | None:
    """Say what makes ``text`` unstorable, or None when it is fine."""
    if "\0" in text:
        return "contains a NUL character, which Postgres cannot store"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "contains a lone surrogate, which is not valid Unicode"
    return None


def clean(text: str) -> str:
    """Make a sentence from outside storable, and no longer than people read."""
    return text[:MAX_REASON_LENGTH].replace("\0", "\ufffd").encode(errors="replace").decode()


def sentence_of(error: BaseException) -> str:
    """Return a clean sentence for what code that is not ours has raised."""
    try:
        return clean(f"{type(error).__name__}: {error}")
    except Exception:  # noqa: BLE001  (its way to say what is wrong is not our code either)
        return type(error).__name__


def json_faults(value: Any, pointer: str = "", depth: int = 0) -> Iterator[Violation]:
    """Yield a violation for every key, string, number or level that ``jsonb`` would refuse.

    Args:
        value: parsed JSON.
        pointer: RFC 6901 pointer of ``value`` within what was sent.
        depth: how deep ``value`` lies.
    """
    if not isinstance(value, dict | list):
        if fault := _scalar_fault(value):
            yield Violation(pointer, fault)
    elif depth >= MAX_DEPTH:
        yield Violation(pointer, f"is nested deeper than {MAX_DEPTH} levels")
    else:
        members = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in members:
            if isinstance(key, str) and (fault := text_fault(key)):
                yield Violation(pointer, f"has a key that {fault}")
            # Only containers are worth a generator: there may be millions of the others.
            elif isinstance(item, dict | list):
                yield from json_faults(item, f"{pointer}/{escape(str(key))}", depth + 1)
            elif fault := _scalar_fault(item):
                yield Violation(f"{pointer}/{escape(str(key))}", fault)


def _scalar_fault(value: Any) -> str | None:
    if isinstance(value, str):
        return text_fault(value)
    if isinstance(value, float):
        return None if math.isfinite(value) else "is not a finite number"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return "is an integer of more than 64 bits"
    return None


def escape(key: str) -> str:
    """Escape a key for use in a JSON pointer (RFC 6901, section 3); of a long one its beginning.

    A thousand lines of an upload may have one fault each, behind keys of megabytes.
    """
    if len(key) > MAX_STEP_LENGTH:
        key = f"{key[:MAX_STEP_LENGTH]}…"
    return key.replace("~", "~0").replace("/", "~1")
