"""The elements of a JSON array, and a member of an object, as the bytes that were sent.

Elements are validated one by one afterwards, so this only finds where each begins and ends: it
need not judge what is inside, and a 16 MiB array does not become Python objects all at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import orjson

# Possessive, so that a string which is never closed costs one pass and not many.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)
_WHITESPACE = b" \t\r\n"
TOKENS_IN_A_TURN = 10_000
"""Some milliseconds' worth. A large element may have millions."""


class NotAnArray(ValueError):
    """The text is not one JSON array; the message says where it ceases to be one."""


def elements(text: bytes) -> Iterator[bytes]:
    """Yield each element of an array, without the whitespace around it.

    Raises:
        NotAnArray: behind the elements that could be told apart.
    """
    return (one for one in elements_in_turns(text) if one is not None)


def elements_in_turns(text: bytes) -> Iterator[bytes | None]:
    """Like ``elements``, and yield None now and then, for those who have others to serve."""
    opening = _opening(text)
    depth, begin, count = 0, opening + 1, 0
    for number, token in enumerate(_TOKEN.finditer(text, opening), 1):
        if number % TOKENS_IN_A_TURN == 0:
            yield None
        kind = token[0]
        if kind in (b"[", b"{"):
            depth += 1
        elif kind in (b"]", b"}"):
            depth -= 1
        elif kind == b'"':
            message = f"The string that begins at byte {token.start()} has no end."
            raise NotAnArray(message)
        if depth == 0 or (depth == 1 and kind == b","):
            element = text[begin : token.start()].strip(_WHITESPACE)
            closes = depth == 0
            if element or not closes or count:
                if not element:
                    message = f"Nothing stands between the commas before byte {token.start()}."
                    raise NotAnArray(message)
                yield element
                count += 1
            begin = token.end()
            if closes:
                _require_end(text, token)
                return
    message = "The array has no end."
    raise NotAnArray(message)


def member(text: bytes, name: str) -> bytes:
    """Return the value of an object's member; of several with this name the last, as parsers do.

    Args:
        text: an object that a parser has accepted.
        name: of a member that it has.
    """
    found = b""
    for pair in elements(b"[%b]" % text.strip(_WHITESPACE)[1:-1]):
        key = _TOKEN.match(pair)
        assert key is not None  # noqa: S101  (a parser has accepted it)
        if orjson.loads(key[0]) == name:
            found = pair[key.end() :].lstrip(_WHITESPACE)[1:].lstrip(_WHITESPACE)
    return found


def _opening(text: bytes) -> int:
    opening = text.find(b"[")
    if opening < 0 or text[:opening].strip(_WHITESPACE):
        message = "A JSON array was expected."
        raise NotAnArray(message)
    return opening


def _require_end(text: bytes, closing: re.Match[bytes]) -> None:
    if closing[0] != b"]" or text[closing.end() :].strip(_WHITESPACE):
        message = f"The array ends at byte {closing.start()}, and the text does not."
        raise NotAnArray(message)
