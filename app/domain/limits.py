"""How much a document may have beside its text; an installation may allow less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.domain.documents import MAX_LABELS, DocumentInput
from app.domain.errors import InvalidInput, Violation
from app.domain.text import MAX_DEPTH

MAX_ATTRIBUTES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """The most of each; the defaults are the most that can be set.

    Attributes:
        topics: of a document.
        keys: likewise.
        attributes: members of ``attributes``, those of objects and arrays within it included.
        depth: levels of objects and arrays in ``attributes``.
    """

    topics: int = MAX_LABELS
    keys: int = MAX_LABELS
    attributes: int = MAX_ATTRIBUTES
    depth: int = MAX_DEPTH

    def check(self, document: DocumentInput) -> None:
        """Pass a document that keeps within them.

        Raises:
            InvalidInput: names the places where it does not.
        """
        if document.topics is None and document.keys is None and document.attributes is None:
            return
        if violations := list(self._violations(document)):
            raise InvalidInput(violations)

    def _violations(self, document: DocumentInput) -> Iterator[Violation]:
        if len(document.topics or ()) > self.topics:
            yield Violation("/topics", f"has more than {self.topics} topics")
        if len(document.keys or ()) > self.keys:
            yield Violation("/keys", f"has more than {self.keys} keys")
        members = depth = 0
        level: list[Any] = [document.attributes or {}]
        while level and members <= self.attributes and depth <= self.depth:
            depth += 1
            members += sum(len(one) for one in level)
            level = [item for one in level for item in _items(one) if isinstance(item, dict | list)]
        if members > self.attributes:
            yield Violation("/attributes", f"has more than {self.attributes} members")
        elif depth > self.depth:
            yield Violation("/attributes", f"is nested deeper than {self.depth} levels")


def _items(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container
