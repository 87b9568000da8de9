from datetime import UTC, datetime

import pytest

from app.domain.backoff import LADDER_SECONDS, jittered, parse_retry_after

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def test_the_ladder_is_the_published_one():
    minutes = [seconds / 60 for seconds in LADDER_SECONDS]
    assert LADDER_SECONDS[0] == 5
    assert minutes[1:] == [5, 30, 120, 300, 600, 840, 1200, 1440]


@pytest.mark.parametrize(("random", "factor"), [(0.0, 0.8), (0.5, 1.0), (0.999999, 1.2)])
def test_jitter_spreads_evenly_around_the_delay(random, factor):
    assert jittered(300, 0.2, lambda: random) == pytest.approx(300 * factor, rel=1e-5)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("١٢", None),
        ("9" * 5000, 999_999_999_999),
        ("Fri, 20 Nov 2026 12:01:30 GMT", 90),
        ("Friday, 20-Nov-26 12:01:30 GMT", 90),
        ("Fri Nov 20 12:01:30 2026", 90),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0),
        ("Fri, 20 Nov 2026 14:01:30 +0200", 90),
        ("Fri, 99 Nov 2026 12:01:30 GMT", None),
        ("Fri, 20 Nov 99999 12:01:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_an_http_date_and_never_negative(value, seconds):
    assert parse_retry_after(value, NOW) == seconds
