"""What a destination takes of the documents that are addressed to it.

==================  ===============================================================================
``categories``      only these; empty: all
``min_confidence``  only documents whose category is at least this certain
``uncertain``       the other way round: only what is less certain than ``min_confidence`` (0.5
                    where none is given), and what has no category, whatever the ``categories``
``filter``          only what meets it, see ``app.domain.filters``
==================  ===============================================================================

All that are given must agree. A document without a category has not been classified (yet).
"""

from __future__ import annotations

from typing import Any, Protocol

from app.domain.destinations import Destination
from app.domain.errors import FilterInvalid
from app.domain.filters import Condition, Facts, Filter, parse_filter
from app.domain.predictions import Prediction

UNCERTAIN_BELOW = 0.5
"""Where an uncertain destination names no ``min_confidence``: rather wrong than right."""


class Described(Protocol):
    """What filters read of a document."""

    @property
    def id(self) -> Any:
        """A UUID; None where there is none yet."""

    @property
    def topics(self) -> list[str] | None:
        """Dotted names."""

    @property
    def attributes(self) -> dict[str, Any] | None:
        """A JSON object of the client's."""


def facts_of(document: Described, prediction: Prediction | None) -> Facts:
    """Return what destinations may judge a document by; what is None is left out."""
    facts: Facts = {}
    if document.id is not None:
        facts["id"] = str(document.id)
    if prediction is not None:
        facts["category"] = prediction.category
        facts["confidence"] = prediction.confidence
    if document.topics is not None:
        facts["topics"] = document.topics
    if document.attributes is not None:
        facts["attributes"] = document.attributes
    return facts


class Admission:
    """Judges documents for one destination.

    Attributes:
        open: everything is taken.
        categories: as a set.
        least: confidence from which on, or with ``uncertain`` below which, documents are taken;
            None where it does not matter.
        uncertain: as above.
        conditions: of the filter.
        fault: why its filter cannot be read any more; such a destination takes nothing.
    """

    __slots__ = ("_filter", "categories", "fault", "least", "open", "uncertain")

    def __init__(self, destination: Destination) -> None:
        self.categories = frozenset(destination.categories)
        self.uncertain = destination.uncertain
        self.least = destination.min_confidence
        if self.uncertain and self.least is None:
            self.least = UNCERTAIN_BELOW
        self._filter = Filter(())
        self.fault: str | None = None
        try:
            self._filter = parse_filter(destination.filter or {})
        except FilterInvalid as error:
            # Written by a version that knew more. One destination must not stop all routing.
            self.fault = f"its filter cannot be read: {error}"
        self.open = not (
            self.categories or self.least is not None or self._filter.conditions or self.fault
        )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of the filter, all of which must hold."""
        return tuple(self._filter.conditions)

    def refusal(self, facts: Facts) -> str | None:
        """Say why a document is not taken; None when it is."""
        if self.open:
            return None
        if self.fault:
            return self.fault
        if (reason := self._refusal_of_category(facts)) is not None:
            return reason
        if (place := self._filter.mismatch(facts)) is not None:
            return f"its filter does not match at {place}"
        return None

    def _refusal_of_category(self, facts: Facts) -> str | None:
        category = facts.get("category")
        if category is None:
            indifferent = not self.categories and self.least is None
            return None if self.uncertain or indifferent else "the document has no category"
        if self.categories and category not in self.categories:
            return f"category {category!r} is not one of its categories"
        if self.least is None:
            return None
        confidence = facts["confidence"]
        if (confidence < self.least) == self.uncertain:
            return None
        relation = "is not below" if self.uncertain else "is below"
        return f"confidence {confidence:.4g} {relation} {self.least:.4g}"

    def grounds(self, facts: Facts) -> str:
        """Say what a document that is taken meets, for behind the reason; "" for no conditions."""
        if self.open:
            return ""
        grounds = []
        category = facts.get("category")
        if category is None:
            if self.uncertain:
                grounds.append("without a category")
        else:
            if self.categories:
                grounds.append(f"category {category!r}")
            if self.least is not None:
                relation = "below" if self.uncertain else "at least"
                grounds.append(f"confidence {facts['confidence']:.4g}, {relation} {self.least:.4g}")
        if self._filter.conditions:
            grounds.append("its filter matches")
        return "".join(f"; {one}" for one in grounds)
