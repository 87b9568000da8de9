import dataclasses
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from app.domain.destinations import DestinationInput, make_destination
from app.domain.documents import DEFAULT_TENANT
from app.domain.errors import DestinationUrlRefused
from app.domain.signing import decode_secret

NOW = datetime(2026, 11, 20, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105


def make(key="a", url="https://example.com/hook", **fields):
    return make_destination(DEFAULT_TENANT, DestinationInput(key=key, url=url, **fields), now=NOW)


def test_a_key_and_a_url_are_enough():
    made = make()
    assert (made.key, made.url, made.description) == ("a", "https://example.com/hook", None)
    assert (made.enabled, made.timeout_seconds) == (True, 15.0)
    assert (made.created_at, made.updated_at, made.disabled_at) == (NOW, NOW, None)
    assert made.id.version == 7
    assert decode_secret(made.secret) != decode_secret(make().secret)


def test_everything_can_be_given():
    made = make(description="For us", enabled=False, timeout_seconds=3, secret=SECRET)
    assert (made.description, made.enabled, made.timeout_seconds) == ("For us", False, 3.0)
    assert made.secret == SECRET


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("key", ""),
        ("key", "a b"),
        ("key", ".a"),
        ("key", "a/b"),
        ("key", "a\n"),
        ("key", "é"),
        ("key", "a" * 101),
        ("url", ""),
        ("url", "https://example.com/" + "a" * 2048),
        ("url", "https://example.com/\0"),
        ("description", "a" * 1001),
        ("description", "a\0"),
        ("timeout_seconds", 0.5),
        ("timeout_seconds", 61),
        ("secret", "whsec_short"),
        ("unknown", 1),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(field, value):
    fields = {"key": "a", "url": "https://example.com/", field: value}
    with pytest.raises(ValidationError) as caught:
        DestinationInput(**fields)
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


def test_a_url_that_is_none_is_refused_when_the_destination_is_made():
    with pytest.raises(DestinationUrlRefused):
        make(url="http://2130706433/")


def test_a_destination_is_a_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().url = "https://elsewhere.example/"
