"""The compiled table against asking every destination in turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.domain.admission import Admission, facts_of
from app.domain.documents import DocumentInput
from app.domain.predictions import Prediction
from app.domain.routing import RoutingTable, Verdict, explain_routes, plan_routes
from app.domain.topics import TopicTree
from tests.domain.test_filters_properties import VALUES
from tests.domain.test_routing import document, keys_of, make

CATEGORIES = st.sampled_from(["a", "b", "c"])
CONFIDENCES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
TOPICS = st.sampled_from(["a", "ab", "a.b", "b.c.d"])
ASKING = st.fixed_dictionaries(
    {},
    optional={
        "category": CATEGORIES | st.fixed_dictionaries({"$in": st.lists(CATEGORIES, max_size=2)}),
        "topics": TOPICS,
        "attributes.a": VALUES.filter(lambda one: not isinstance(one, dict | list)),
        "attributes.a.0": st.sampled_from([1, True, "a"]),
        "attributes": st.just({"b": {"a": 1}}),
        "attributes.b": st.sampled_from([None, {"$in": [None, "a"]}, {"$ne": 1}, {"$eq": [1]}]),
        "confidence": st.sampled_from([{"$gt": 0.5}, {"$lte": 0.5}, 0.5]),
        "attributes.b.a": st.sampled_from([{"$exists": True}, {"$exists": False}, {"$lt": "b"}]),
        "$or": st.just([{"category": "a"}, {"attributes.a": {"$startsWith": "a"}}]),
        "$not": st.just({"category": "a"}),
    },
)
WANTED = st.fixed_dictionaries(
    {"enabled": st.sampled_from([True, True, True, False])},
    optional={
        "topics": st.lists(st.sampled_from(["a", "a.*", "**", "b.**", "*.b"]), max_size=2),
        "categories": st.lists(CATEGORIES, max_size=2),
        "min_confidence": CONFIDENCES,
        "uncertain": st.booleans(),
        "filter": ASKING,
    },
)
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "delivery": st.sampled_from(["broadcast", "key", "topic"]),
        "keys": st.lists(st.sampled_from(["d0", "d1", "d2", "other"]), max_size=3),
        "topics": st.lists(TOPICS, max_size=2),
        "attributes": st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2),
    },
)
PREDICTIONS = st.none() | st.builds(Prediction, CATEGORIES, CONFIDENCES, st.just("m"))


def reached(given: DocumentInput, destination) -> bool:
    """The table of the modes, read aloud."""
    tree = TopicTree()
    for pattern in destination.topics:
        tree.add(pattern, 0)
    named = destination.key in (given.keys or ())
    subscribed = any(tree.find(topic) for topic in given.topics or ())
    match given.delivery:
        case "broadcast":
            return True
        case "key":
            return named
        case "topic":
            return subscribed
    return named or subscribed if given.keys or given.topics else True


@given(st.lists(WANTED, max_size=6), GIVEN, PREDICTIONS)
def test_the_table_finds_whom_asking_each_would_find(wanted, fields, prediction):
    destinations = [make(f"d{number}", **one) for number, one in enumerate(wanted)]
    given_ = document(**fields)
    facts = facts_of(given_, prediction)
    expected = [
        one.key
        for one in destinations
        if one.enabled and reached(given_, one) and Admission(one).refusal(facts) is None
    ]
    routes = plan_routes(given_, prediction, destinations)
    assert keys_of(routes, destinations) == expected
    verdicts = explain_routes(given_, prediction, destinations)
    assert [one.destination_id for one in verdicts] == [one.id for one in destinations]
    assert all(one.reason for one in verdicts)
    reasons = [(one.destination_id, one.reason) for one in routes]
    assert reasons == [(one.destination_id, one.reason) for one in verdicts if one.routed]


def test_each_is_told_why_it_gets_a_document_or_not():
    destinations = [
        make("taker", topics=("s.*",), filter={"attributes.tier": "gold"}),
        make("named"),
        make("off", enabled=False),
        make("gone", enabled=False, disabled_reason="the receiver answered 410"),
        make("other", topics=("t.*",)),
        make("deaf"),
        make("picky", topics=("**",), min_confidence=0.9),
    ]
    given_ = document(keys=["named"], topics=["s.a"], attributes={"tier": "gold"})
    verdicts = explain_routes(given_, Prediction("space", 0.75, "m"), destinations)
    assert verdicts == [
        Verdict(one.id, routed, reason)
        for one, (routed, reason) in zip(
            destinations,
            [
                (True, "topic 's.a' fits 's.*'; its filter matches"),
                (True, "key 'named' was named"),
                (False, "it is disabled"),
                (False, "it is disabled: the receiver answered 410"),
                (False, "its key 'other' is not named; no topic fits its patterns"),
                (False, "its key 'deaf' is not named; it subscribes to no topics"),
                (False, "confidence 0.75 is below 0.9"),
            ],
            strict=True,
        )
    ]


def test_a_document_that_names_nobody_says_so():
    destinations = [make("a", topics=("t",))]
    for mode, reason in [
        ("key", "delivery is by key, and the document names none"),
        ("topic", "delivery is by topic, and the document has none"),
    ]:
        (verdict,) = explain_routes(document(delivery=mode), None, destinations)
        assert (verdict.routed, verdict.reason) == (False, reason)


APART = [
    lambda number: {"categories": [f"c{number}"]},
    lambda number: {"filter": {"attributes.tenant": f"t{number}", "category": "space"}},
    lambda number: {"filter": {"attributes.tenant": {"$in": [f"t{number}", f"u{number}"]}}},
    lambda number: {"filter": {f"attributes.flag{number}": True}},
    lambda number: {"filter": {f"attributes.flag{number}": {"$exists": True}}},
    lambda number: {"filter": {"attributes.tenant": {"$startsWith": f"t{number}"}}},
    lambda number: {"filter": {"attributes.size": {"$gt": number + 10}}},
    lambda number: {"filter": {"attributes.size": {"$lte": -number}}},
    lambda number: {"filter": {"attributes.tenant": {"$gte": f"u{number}"}}},
    lambda number: {"filter": {"$or": [{"id": f"{number}"}, {"attributes.tenant": f"t{number}"}]}},
    lambda number: {"filter": {"attributes.tags": {"$eq": [number]}}},
    lambda _: {"min_confidence": 0.9},
    lambda _: {"uncertain": True},
]  # fmt: skip


def test_those_who_cannot_match_are_not_asked(monkeypatch):
    """1,000 destinations that tell themselves apart in every way there is; three match."""
    crowd = [APART[number % len(APART)](number) for number in range(1000)]
    crowd += [{"categories": ["space"]}, {"filter": {"attributes.tenant": "t"}}, {}]
    destinations = [make(f"d{number}", **one) for number, one in enumerate(crowd)]
    table = RoutingTable(destinations)
    asked = []
    refusal = Admission.refusal
    monkeypatch.setattr(
        Admission, "refusal", lambda self, facts: asked.append(self) or refusal(self, facts)
    )
    given_ = document(attributes={"tenant": "t", "flags": 5, "size": 7})
    found = table.routes(given_, Prediction("space", 0.75, "m"))
    assert keys_of(found, destinations) == ["d1000", "d1001", "d1002"]
    assert len(asked) == 3


def test_thresholds_alone_lead_to_those_who_want_that_confidence():
    levels = [0.0, 0.25, 0.5, 0.5, 1.0]
    destinations = [
        make(f"{'below' if uncertain else 'from'} {level} ({number})", **fields)
        for number, level in enumerate(levels)
        for uncertain in (False, True)
        for fields in [{"min_confidence": level, "uncertain": uncertain}]
    ]
    table = RoutingTable(destinations)
    for confidence in (0.0, 0.2, 0.25, 0.5, 0.7, 1.0):
        found = table.routes(document(), Prediction("space", confidence, "m"))
        assert [one.destination_id for one in found] == [
            one.id for one in destinations if (confidence < one.min_confidence) is one.uncertain
        ]
    unclassified = table.routes(document(), None)
    assert [one.destination_id for one in unclassified] == [
        one.id for one in destinations if one.uncertain
    ]


def test_many_names_are_shortened_in_the_sentence_that_says_why_nobody():
    table = RoutingTable([make("z")])
    assert table.why_nobody(document(keys=["z"]), None) is None
    assert table.why_nobody(document(keys=list("abcdefg"), topics=["t"]), None) == (
        "No enabled destination has one of its keys ('a', 'b', 'c', 'd', 'e' and 2 more)"
        " or subscribes to one of its topics ('t')."
    )
