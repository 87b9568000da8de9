"""Finds the destinations that may take a document without asking each one.

Every destination is entered under the demands of one of its conditions, the one that the fewest
others share: something that its filter asks for, a category or a confidence. The index answers with
too many rather than too few; who is found is still asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from app.domain.admission import Admission
from app.domain.demands import Demand, DemandIndex, Kind
from app.domain.filters import Facts

CATEGORY, CONFIDENCE = ("category",), ("confidence",)


class AdmissionIndex:
    """Which members may take a document, by what is known of it."""

    def __init__(self, admissions: Mapping[int, Admission]) -> None:
        """Enter members.

        Args:
            admissions: by member.
        """
        self._always: set[int] = set()
        self._without_category: set[int] = set()
        self._demands = DemandIndex()
        choices = {member: _choices(admission) for member, admission in admissions.items()}
        crowd = Counter(
            _crowd(demand) for found in choices.values() for demands in found for demand in demands
        )
        for member, admission in admissions.items():
            if not choices[member]:
                self._always.add(member)
                continue
            best = min(choices[member], key=lambda demands: _expected(demands, crowd))
            for demand in best:
                self._demands.add(demand, member)
            # Documents without a category have neither, and these take them all the same.
            if admission.uncertain and any(one.path in {CATEGORY, CONFIDENCE} for one in best):
                self._without_category.add(member)

    def candidates(self, facts: Facts) -> list[Collection[int]]:
        """Return groups of members; together they hold everyone who takes the document."""
        found = [self._always, *self._demands.find(facts)]
        if "category" not in facts:
            found.append(self._without_category)
        return found


def _choices(admission: Admission) -> list[Sequence[Demand]]:
    """Return the demands of each condition that has any; one of each must be met."""
    found: list[Sequence[Demand]] = [
        one.demands for one in admission.conditions if one.demands is not None
    ]
    if admission.categories:
        found.append([Demand(Kind.IS, CATEGORY, one) for one in admission.categories])
    if admission.least is not None:
        kind = Kind.AT_MOST if admission.uncertain else Kind.AT_LEAST
        found.append([Demand(kind, CONFIDENCE, admission.least)])
    return found


def _crowd(demand: Demand) -> Demand:
    """Return what stands for the demands that are met together."""
    return demand if demand.kind in {Kind.IS, Kind.STARTS} else demand._replace(operand=None)


def _expected(demands: Iterable[Demand], crowd: Counter[Demand]) -> int:
    """Return about how many members are asked in vain where these demands are met."""
    return sum(crowd[_crowd(demand)] for demand in demands)
