"""Finds the destinations that may take a document without asking each one.

Every destination is entered under the one thing about its admission that tells it best from the
others: a value that its filter asks for, a category, or its least confidence. The index answers
with too many rather than too few; who is found is still asked.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from app.domain.admission import Admission
from app.domain.comparisons import Path, list_index, scalar
from app.domain.filters import Facts

CATEGORY: Path = ("category",)


class Anchor(NamedTuple):
    """Something that a document must show: one of some values at a path."""

    path: Path
    scalars: frozenset[Any]


class _Thresholds:
    """Members by the confidence at which they begin, or cease, to take documents."""

    def __init__(self, entries: Iterable[tuple[float, int]]) -> None:
        ordered = sorted(entries)
        self._least = [least for least, _ in ordered]
        self._members = [member for _, member in ordered]

    def reached_by(self, confidence: float) -> list[int]:
        return self._members[: bisect_right(self._least, confidence)]

    def above(self, confidence: float) -> list[int]:
        return self._members[bisect_right(self._least, confidence) :]


class _Values:
    """A place within documents, the members that ask for a value there, and the places below."""

    __slots__ = ("below", "members")

    def __init__(self) -> None:
        self.members: dict[Any, set[int]] = {}
        self.below: dict[str, _Values] = {}

    def add(self, anchor: Anchor, member: int) -> None:
        place = self
        for part in anchor.path:
            place = place.below.setdefault(part, _Values())
        for value in anchor.scalars:
            place.members.setdefault(value, set()).add(member)

    def find(self, value: Any) -> Iterator[set[int]]:
        """Yield the members that ask for what stands here in a document, or below."""
        if isinstance(value, dict):
            # Over the fewer of both: there may be 1,000 places, and as many attributes.
            names = min(value, self.below, key=len)
            inner = [(self.below[name], value[name]) for name in names if self._leads(name, value)]
        elif isinstance(value, list):
            yield from self._asking_for(one for one in value if not isinstance(one, dict | list))
            inner = [
                (place, value[index])
                for name, place in self.below.items()
                if (index := list_index(name)) is not None and index < len(value)
            ]
        else:
            yield from self._asking_for([value])
            return
        for place, there in inner:
            yield from place.find(there)

    def _leads(self, name: str, value: dict[str, Any]) -> bool:
        return name in self.below and name in value

    def _asking_for(self, scalars: Iterable[Any]) -> Iterator[set[int]]:
        if self.members:
            for one in scalars:
                if (members := self.members.get(scalar(one))) is not None:
                    yield members


class AdmissionIndex:
    """Which members may take a document, by what is known of it."""

    def __init__(self, admissions: Mapping[int, Admission]) -> None:
        """Enter members.

        Args:
            admissions: by member.
        """
        self._always: set[int] = set()
        self._without_category: set[int] = set()
        self._values = _Values()
        sure: list[tuple[float, int]] = []
        unsure: list[tuple[float, int]] = []
        anchors = {member: _anchors(admission) for member, admission in admissions.items()}
        crowd = Counter(
            (anchor.path, value)
            for found in anchors.values()
            for anchor in found
            for value in anchor.scalars
        )
        for member, admission in admissions.items():
            if found := anchors[member]:
                best = min(
                    found,
                    key=lambda one: sum(crowd[one.path, value] for value in one.scalars),
                )
                self._values.add(best, member)
                if admission.uncertain and best.path == CATEGORY:
                    self._without_category.add(member)
            elif admission.least is None:
                self._always.add(member)
            elif admission.uncertain:
                unsure.append((admission.least, member))
                self._without_category.add(member)
            else:
                sure.append((admission.least, member))
        self._sure, self._unsure = _Thresholds(sure), _Thresholds(unsure)

    def candidates(self, facts: Facts) -> list[Collection[int]]:
        """Return groups of members; together they hold everyone who takes the document."""
        found: list[Collection[int]] = [self._always, *self._values.find(facts)]
        confidence = facts.get("confidence")
        if confidence is None:
            found.append(self._without_category)
        else:
            found += [self._sure.reached_by(confidence), self._unsure.above(confidence)]
        return [group for group in found if group]


def _anchors(admission: Admission) -> list[Anchor]:
    found = [
        Anchor(condition.path, condition.scalars)
        for condition in admission.conditions
        if condition.scalars is not None
    ]
    if admission.categories:
        found.append(Anchor(CATEGORY, admission.categories))
    return found
