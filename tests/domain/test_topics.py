"""Patterns against topics: by example, and against the regular expressions that they abbreviate."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.topics import TopicTree, pattern_fault

PARTS = st.sampled_from(["a", "b", "c", ""])
TOPICS = st.lists(PARTS, min_size=1, max_size=6).map(".".join)
PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=5).map(".".join)


def fits(topic, *patterns):
    tree = TopicTree()
    for place, pattern in enumerate(patterns):
        tree.add(pattern, place)
    return {member for found in tree.find(topic) for member in found.members}


def expression(pattern):
    """The same as a regular expression over parts that each end in a dot."""
    one = r"[^.]*\."
    parts = {"*": one, "**": f"(?:{one})*"}
    return "".join(parts.get(part, re.escape(part + ".")) for part in pattern.split("."))


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("a.b", ["a.b"], ["a", "a.b.c", "a.B", "a.c", "b.a"]),
        ("a.*", ["a.b", "a.*", "a."], ["a", "a.b.c", "b.a"]),
        ("*", ["a", "*"], ["a.b"]),
        ("*.b", ["a.b"], ["b", "a.a.b"]),
        ("a.*.c", ["a.b.c"], ["a.c", "a.b.b.c"]),
        ("a.**", ["a", "a.b", "a.b.c"], ["b", "ab", "b.a"]),
        ("**", ["a", "a.b.c"], []),
        ("**.c", ["c", "b.c", "a.b.c"], ["c.a", "a"]),
        ("a.**.c", ["a.c", "a.b.c", "a.b.b.c", "a.c.c"], ["a", "c", "a.c.b"]),
        ("a.**.b.**", ["a.b", "a.c.b.d", "a.b.b"], ["a", "a.c"]),
    ],
)
def test_what_a_pattern_stands_for(pattern, fitting, other):
    assert pattern_fault(pattern) is None
    assert [topic for topic in fitting if not fits(topic, pattern)] == []
    assert [topic for topic in other if fits(topic, pattern)] == []


@pytest.mark.parametrize("pattern", ["", "a.", ".a", "a..b", "a*", "a.b*", "***", "a.*.x**"])
def test_a_pattern_that_means_nothing_has_a_fault(pattern):
    assert pattern_fault(pattern)


def test_a_topic_names_each_pattern_that_it_fits_with_its_subscribers():
    tree = TopicTree()
    for member, pattern in enumerate(["a.*", "a.b", "a.*", "b", "**"]):
        tree.add(pattern, member)
    assert sorted(tree.find("a.b")) == [("**", {4}), ("a.*", {0, 2}), ("a.b", {1})]
    assert TopicTree().find("a.b") == []


@given(TOPICS, st.lists(PATTERNS, max_size=8))
def test_patterns_agree_with_regular_expressions(topic, patterns):
    expected = {
        place
        for place, pattern in enumerate(patterns)
        if re.fullmatch(expression(pattern), topic + ".")
    }
    assert fits(topic, *patterns) == expected
