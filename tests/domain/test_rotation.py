from datetime import UTC, datetime, timedelta

import pytest

from app.domain.errors import SecretsOverlap
from app.domain.rotation import MAX_OLD, in_force, with_replaced

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
AT = int(NOW.timestamp())


def test_what_is_replaced_signs_until_the_overlap_ends():
    old = with_replaced([], "a", 60, NOW)
    assert old == [{"secret": "a", "expires_at": AT + 60}]
    assert in_force(old, NOW + timedelta(seconds=59)) == old
    assert in_force(old, NOW + timedelta(seconds=60)) == []


def test_the_newest_stands_first_and_what_has_expired_goes():
    old = with_replaced([], "a", 60, NOW)
    old = with_replaced(old, "b", 60, NOW + timedelta(seconds=30))
    assert [one["secret"] for one in old] == ["b", "a"]
    old = with_replaced(old, "c", 60, NOW + timedelta(seconds=70))
    assert [one["secret"] for one in old] == ["c", "b"]


def test_no_secret_outlives_the_overlap_of_a_later_rotation():
    old = with_replaced([], "a", 1000, NOW)
    assert with_replaced(old, "b", 10, NOW) == [
        {"secret": "b", "expires_at": AT + 10},
        {"secret": "a", "expires_at": AT + 10},
    ]
    assert with_replaced(old, "b", 0, NOW) == []


def test_only_so_many_overlap():
    old = []
    for secret in "abcdefgh"[:MAX_OLD]:
        old = with_replaced(old, secret, 60, NOW)
    with pytest.raises(SecretsOverlap, match="overlap_seconds 0"):
        with_replaced(old, "x", 60, NOW)
    assert with_replaced(old, "x", 0, NOW) == []
    assert len(with_replaced(old, "x", 60, NOW + timedelta(seconds=60))) == 1
