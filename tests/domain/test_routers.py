"""What a router of the user's may return."""

from __future__ import annotations

import pytest

from app.domain.errors import RouterFailed
from app.domain.identifiers import new_id
from app.domain.routers import RouteTo, read_answer
from app.domain.routing import Route
from tests.domain.test_routing import make

A, B = make("a"), make("b")
HOOK = "https://Example.com/hook"


def test_targets_are_destinations_ids_keys_and_urls_with_or_without_reasons():
    answer = [RouteTo(A, "ours"), ("b", "theirs"), (HOOK, "a hook"), "https://example.com"]
    chosen = read_answer(answer, [A, B])
    assert chosen.routes == [Route(A.id, "ours"), Route(B.id, "theirs")]
    assert chosen.urls == {
        "https://example.com/hook": "a hook",
        "https://example.com/": "chosen by the router",
    }
    assert read_answer((one for one in [B.id, A]), [A, B]).routes == [
        Route(B.id, "chosen by the router"),
        Route(A.id, "chosen by the router"),
    ]


def test_what_the_table_returns_can_be_returned():
    assert read_answer([Route(B.id, "broadcast")], [A, B]).routes == [Route(B.id, "broadcast")]


def test_the_first_reason_for_a_destination_counts():
    chosen = read_answer([("a", "first"), (A, "second"), (HOOK, "x"), (HOOK.lower(), "y")], [A])
    assert chosen.routes == [Route(A.id, "first")]
    assert chosen.urls == {"https://example.com/hook": "x"}


def test_a_destination_that_is_not_there_any_more_holds_up_no_other():
    assert read_answer(["gone", new_id(), B, "a"], [A]).routes == [
        Route(A.id, "chosen by the router")
    ]
    assert read_answer([], [A]) == ([], {})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "returned NoneType"),
        ("a", "returned str"),
        ({"a": 1}, "returned dict"),
        (5, "returned int"),
        ([5], "routed to int"),
        ([None], "routed to NoneType"),
        ([("a", 5)], "gave int as a reason"),
        ([("a", "x\0")], "gave a reason that contains a NUL"),
        ([("a", "b", "c")], "routed to tuple"),
        (["ftp://example.com"], "routed to a URL that must begin with http"),
        (["http://user:secret@example.com"], "routed to a URL that must not carry a user name"),
    ],
    ids=str,
)
def test_an_answer_that_makes_no_sense_is_a_failure_that_says_why(answer, said):
    with pytest.raises(RouterFailed, match=said) as caught:
        read_answer(answer, [A])
    assert "secret" not in str(caught.value)


def test_long_reasons_are_cut():
    (route,) = read_answer([("a", "x" * 1000)], [A]).routes
    assert len(route.reason) == 500
