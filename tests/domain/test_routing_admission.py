"""What a destination takes of what is addressed to it."""

from __future__ import annotations

import pytest

from app.domain.admission import Admission, facts_of
from app.domain.documents import DocumentInput
from app.domain.predictions import Prediction
from tests.domain.test_routing import make


def judge(prediction=None, fields=None, **wanted):
    """The refusal, or the grounds of taking the document."""
    admission = Admission(make(**wanted))
    facts = facts_of(DocumentInput(content="x", **(fields or {})), prediction)
    refusal = admission.refusal(facts)
    return (False, refusal) if refusal else (True, admission.grounds(facts))


SPACE = Prediction("space", 0.75, "m")


@pytest.mark.parametrize(
    ("wanted", "prediction", "taken", "said"),
    [
        ({}, SPACE, True, ""),
        ({}, None, True, ""),
        ({"categories": ["med", "space"]}, SPACE, True, "; category 'space'"),
        ({"categories": ["med"]}, SPACE, False, "category 'space' is not one of its categories"),
        ({"categories": ["med"]}, None, False, "the document has no category"),
        ({"min_confidence": 0.75}, SPACE, True, "; confidence 0.75, at least 0.75"),
        ({"min_confidence": 0.8}, SPACE, False, "confidence 0.75 is below 0.8"),
        ({"min_confidence": 0}, None, False, "the document has no category"),
        ({"min_confidence": 0.8, "uncertain": True}, SPACE, True, "; confidence 0.75, below 0.8"),
        (
            {"min_confidence": 0.75, "uncertain": True},
            SPACE,
            False,
            "confidence 0.75 is not below 0.75",
        ),
        ({"uncertain": True}, SPACE, False, "confidence 0.75 is not below 0.5"),
        ({"uncertain": True}, Prediction("space", 0.4, "m"), True, "; confidence 0.4, below 0.5"),
        ({"uncertain": True}, None, True, "; without a category"),
        ({"uncertain": True, "categories": ["med"]}, None, True, "; without a category"),
        (
            {"uncertain": True, "categories": ["med"]},
            Prediction("space", 0.4, "m"),
            False,
            "category 'space' is not one of its categories",
        ),
        (
            {"categories": ["space"], "min_confidence": 0.5, "filter": {"category": "space"}},
            SPACE,
            True,
            "; category 'space'; confidence 0.75, at least 0.5; its filter matches",
        ),
        (
            {"categories": ["space"], "filter": {"confidence": {"$gt": 0.8}}},
            SPACE,
            False,
            "its filter does not match at /confidence/$gt",
        ),
        ({"filter": {}}, SPACE, True, ""),
    ],
)
def test_everything_that_is_wanted_must_agree(wanted, prediction, taken, said):
    assert judge(prediction, **wanted) == (taken, said)


def test_a_filter_sees_the_document_and_its_prediction():
    fields = {"id": "00000000-0000-0000-0000-000000000007", "topics": ["t"], "attributes": {"a": 1}}
    filter_ = {
        "id": {"$startsWith": "00000000-"},
        "category": "space",
        "confidence": 0.75,
        "topics": "t",
        "attributes.a": 1,
    }
    assert judge(SPACE, fields, filter=filter_) == (True, "; its filter matches")
    nothing = {name: {"$exists": False} for name in filter_}
    assert judge(None, filter=nothing)[0]


def test_a_filter_of_a_version_that_knew_more_takes_nothing_and_says_why():
    taken, said = judge(SPACE, filter={"category": {"$near": "space"}})
    assert not taken
    assert said.startswith("its filter cannot be read: is not an operator")
