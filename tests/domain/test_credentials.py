import base64

import pytest
from pydantic import TypeAdapter, ValidationError

from app.domain.credentials import (
    MAX_HEADERS,
    Auth,
    header_lines,
    sealed_auth,
    sealed_headers,
)
from app.domain.encryption import new_key
from app.domain.errors import EncryptionKeyMissing, HeadersInvalid, Undecryptable
from app.domain.vault import Vault

VAULT = Vault([new_key()])
AUTH = TypeAdapter(Auth)


def bearer(token):
    return AUTH.validate_python({"type": "bearer", "token": token})


def basic(username, password):
    return AUTH.validate_python({"type": "basic", "username": username, "password": password})


def test_headers_and_credentials_become_lines():
    headers = sealed_headers({"X-Api-Version": "2", "X-Empty": "", "accept": "text/*"}, VAULT)
    auth = sealed_auth(bearer("t0k3n"), VAULT)
    assert headers["header_names"] == ["X-Api-Version", "X-Empty", "accept"]
    assert auth["auth_type"] == "bearer"
    assert "t0k3n" not in str(auth)
    assert header_lines(headers["sealed_headers"], auth["sealed_auth"], VAULT) == {
        "x-api-version": "X-Api-Version: 2\r\n",
        "x-empty": "X-Empty: \r\n",
        "accept": "accept: text/*\r\n",
        "authorization": "Authorization: Bearer t0k3n\r\n",
    }
    with pytest.raises(Undecryptable):
        header_lines(headers["sealed_headers"], None, Vault([new_key()]))


def test_basic_credentials_are_utf_8_in_base64():
    auth = basic("jürgen", "a:b ☃")
    assert auth.header() == "Basic " + base64.b64encode("jürgen:a:b ☃".encode()).decode()


def test_nothing_given_needs_no_key():
    assert sealed_headers({}, Vault()) == {"header_names": [], "sealed_headers": None}
    assert sealed_auth(None, Vault()) == {"auth_type": None, "sealed_auth": None}
    assert header_lines(None, None, Vault()) == {}


def test_without_a_key_the_place_is_named():
    for seal, pointer in (
        (lambda: sealed_headers({"X-A": "1"}, Vault()), "/headers"),
        (lambda: sealed_auth(bearer("t"), Vault()), "/auth"),
    ):
        with pytest.raises(EncryptionKeyMissing) as caught:
            seal()
        assert [one.pointer for one in caught.value.violations] == [pointer]


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        *(
            (name, "x", "belongs to the connection")
            for name in (
                "Connection",
                "keep-alive",
                "Proxy-Authorization",
                "proxy-connection",
                "TE",
                "Trailer",
                "Transfer-Encoding",
                "UPGRADE",
                "HTTP2-Settings",
            )
        ),
        *(
            (name, "x", "is set by Docyard itself")
            for name in (
                "Host",
                "Content-Length",
                "content-type",
                "Content-Encoding",
                "Accept-Encoding",
                "Expect",
                "Webhook-Id",
                "webhook-signature",
                "webhook-anything",
                "ce-id",
            )
        ),
        ("", "x", "is not the name of a header"),
        ("X A", "x", "is not the name of a header"),
        ("X-A:", "x", "is not the name of a header"),
        ("X-A\r\nX-B", "x", "is not the name of a header"),
        ("X-A\n", "x", "is not the name of a header"),
        ("Ünder", "x", "is not the name of a header"),
        ("X-\0", "x", "is not the name of a header"),
        ("X-\ud800", "x", "is not the name of a header"),
        ("X" * 101, "x", "is not the name of a header"),
        ("X-A", "a\r\nX-B: b", "line break"),
        ("X-A", "a\n", "line break"),
        ("X-A", "a\rb", "line break"),
        ("X-A", "a\0b", "control character"),
        ("X-A", "a\x7f", "control character"),
        ("X-A", "é", "outside ASCII"),
        ("X-A", "a\x85b", "outside ASCII"),
        ("X-A", "\u2028", "outside ASCII"),
        ("X-A", "\ud800", "outside ASCII"),
        ("X-A", " hunter2", "begins or ends with a space"),
        ("X-A", "a\t", "begins or ends with a space"),
    ],
)
def test_a_header_that_cannot_be_sent_is_named_without_its_value(name, value, fault):
    with pytest.raises(HeadersInvalid, match=fault) as caught:
        sealed_headers({"X-Fine": "yes", name: value}, VAULT)
    (violation,) = caught.value.violations
    assert violation.pointer.startswith("/headers/")
    violation.pointer.encode()
    assert value == "x" or value not in violation.detail


def test_every_bad_header_is_named():
    with pytest.raises(HeadersInvalid) as caught:
        sealed_headers({"Host": "x", "x-a/b~": "1", "X-A": "1", "x-a": "2"}, VAULT)
    assert [(one.pointer, one.detail[:15]) for one in caught.value.violations] == [
        ("/headers/Host", "is set by Docya"),
        ("/headers/x-a~1b~0", "is not the name"),
        ("/headers/x-a", "is there twice:"),
    ]


@pytest.mark.parametrize(
    "headers",
    [{f"X-{n}": "1" for n in range(MAX_HEADERS + 1)}, {"X-A": "a" * 8192}],
)
def test_headers_have_bounds(headers):
    with pytest.raises(HeadersInvalid, match="has more than"):
        sealed_headers(headers, VAULT)


@pytest.mark.parametrize(
    ("auth", "place"),
    [
        ({"type": "digest"}, ()),
        ({}, ()),
        ({"type": "basic", "username": "a:b", "password": "p"}, ("basic", "username")),
        ({"type": "basic", "username": "a", "password": "p\r\n"}, ("basic", "password")),
        ({"type": "basic", "username": "a"}, ("basic", "password")),
        ({"type": "bearer", "token": "a b"}, ("bearer", "token")),
        ({"type": "bearer", "token": "a\n"}, ("bearer", "token")),
        ({"type": "bearer", "token": ""}, ("bearer", "token")),
        ({"type": "bearer", "token": "t", "username": "a"}, ("bearer", "username")),
    ],
)
def test_credentials_that_cannot_be_sent_are_refused_by_their_place(auth, place):
    with pytest.raises(ValidationError) as caught:
        AUTH.validate_python(auth)
    assert [error["loc"] for error in caught.value.errors()] == [place]


def test_credentials_do_not_show_themselves():
    shown = repr(bearer("t0k3n"))
    shown += repr(basic("us3r", "p4ss"))
    assert not any(text in shown for text in ("t0k3n", "us3r", "p4ss"))
