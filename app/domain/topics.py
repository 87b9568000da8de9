"""Topics of documents, and the patterns by which destinations subscribe to them.

Both are dotted: ``sensor.kitchen.temperature``. In a pattern ``*`` stands for exactly one part and
``**`` for any number of parts, none included, wherever it stands: ``sensor.**`` fits ``sensor`` and
all below it, ``**.alarm`` every topic that ends so, ``a.**.z`` also ``a.z``. In a document's topic
an asterisk means itself. Upper and lower case differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

ONE_PART = "*"
ANY_PARTS = "**"


def pattern_fault(pattern: str) -> str | None:
    """Say what makes ``pattern`` unusable, or None when it is fine."""
    for part in pattern.split("."):
        if not part:
            return "has an empty part; parts are separated by single dots"
        if "*" in part and part not in {ONE_PART, ANY_PARTS}:
            return "has an asterisk beside other characters; `*` and `**` stand for whole parts"
    return None


class Subscription(NamedTuple):
    """A pattern that a topic fits, and who subscribed to it (places in the caller's list)."""

    pattern: str
    members: set[int]


class _Node:
    """Where the patterns that begin with the same parts go on."""

    __slots__ = ("any_parts", "literal", "one_part", "repeats", "subscription")

    def __init__(self, *, repeats: bool = False) -> None:
        self.literal: dict[str, _Node] = {}
        self.one_part: _Node | None = None
        self.any_parts: _Node | None = None
        self.repeats = repeats
        self.subscription: Subscription | None = None

    def next(self, part: str) -> _Node:
        """Return the node behind a part of a pattern, made if need be."""
        if part == ANY_PARTS:
            self.any_parts = self.any_parts or _Node(repeats=True)
            return self.any_parts
        if part == ONE_PART:
            self.one_part = self.one_part or _Node()
            return self.one_part
        return self.literal.setdefault(part, _Node())


class TopicTree:
    """Finds the patterns that a topic fits, in time that grows with those and not with all."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, pattern: str, member: int) -> None:
        """Subscribe a member to a pattern without faults."""
        node = self._root
        for part in pattern.split("."):
            node = node.next(part)
        if node.subscription is None:
            node.subscription = Subscription(pattern, set())
        node.subscription.members.add(member)

    def find(self, topic: str) -> list[Subscription]:
        """Return the subscriptions that a topic fits."""
        # Every place in the patterns that the parts read so far may have led to.
        places = _entered([self._root])
        for part in topic.split("."):
            places = _entered(after for place in places for after in _after(place, part))
            if not places:
                return []
        return [place.subscription for place in places if place.subscription is not None]


def _after(place: _Node, part: str) -> Iterable[_Node]:
    if place.repeats:
        yield place
    if (literal := place.literal.get(part)) is not None:
        yield literal
    if place.one_part is not None:
        yield place.one_part


def _entered(nodes: Iterable[_Node]) -> dict[_Node, None]:
    """Return the nodes, each once, with those that ``**`` reaches without reading a part."""
    entered: dict[_Node, None] = {}
    for node in nodes:
        place: _Node | None = node
        while place is not None and place not in entered:
            entered[place] = None
            place = place.any_parts
    return entered
