import pytest

from app.domain.errors import DestinationUrlRefused
from app.domain.urls import normalised_url


@pytest.mark.parametrize(
    ("given", "normalised"),
    [
        ("https://example.com/hook", "https://example.com/hook"),
        ("http://example.com", "http://example.com/"),
        ("HTTPS://Example.COM/Hook", "https://example.com/Hook"),
        ("https://example.com:8443/a/b?c=d&e=%20f", "https://example.com:8443/a/b?c=d&e=%20f"),
        ("https://example.com./", "https://example.com./"),
        ("http://localhost:8000/x", "http://localhost:8000/x"),
        ("http://my_service:8000/", "http://my_service:8000/"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000/"),
        ("http://[::1]:9000/", "http://[::1]:9000/"),
        ("http://[2001:DB8::1]/", "http://[2001:db8::1]/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://BÜCHER.example/", "https://xn--bcher-kva.example/"),
    ],
)
def test_a_good_url_is_kept_with_its_host_in_ascii_and_lower_case(given, normalised):
    assert normalised_url(given) == normalised


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "must begin with http"),
        ("example.com/hook", "must begin with http"),
        ("//example.com/", "must begin with http"),
        ("ftp://example.com/", "must begin with http"),
        ("file:///etc/passwd", "must begin with http"),
        ("javascript:alert(1)", "must begin with http"),
        ("http:///path", "no host"),
        ("http://:80/", "no host"),
        ("https://user:secret@example.com/", "user name"),
        ("https://user@example.com/", "user name"),
        ("https://example.com@127.0.0.1/", "user name"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com:0/", "port"),
        ("https://example.com:/", "port"),
        ("https://example.com:65536/", "valid URL"),
        ("https://example.com:port/", "valid URL"),
        ("https://exa mple.com/", "space"),
        ("https://example.com/a b", "space"),
        ("https://example.com/\n", "space"),
        ("https://example.com/\0", "space"),
        ("https://example.com/\ud800", "surrogate"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https://example.com\t@127.0.0.1/", "space"),
        ("https://1.1.1.1;@127.0.0.1/", "user name"),
        ("https://example.com:80@127.0.0.1:80/", "user name"),
        ("https://example.com:80:80/", "valid URL"),
        ("https://example.com:+80/", "valid URL"),
        ("https://example.com:\uff18\uff10/", "valid URL"),
        ("https://example.com\u3000/", "valid name"),
        ("http://127.0.0.1%00.example.com/", "valid name"),
        ("http://[::1/", "valid URL"),
        ("http://[::g]/", "IPv6|valid URL"),
        ("http://[fe80::1%25eth0]/", "interface|IPv6"),
        ("http://[::ffff:127.0.0.1]/", "hides"),
        ("http://[::ffff:7f00:1]/", "hides"),
        ("http://internal[2606:4700::1]/", "beside|valid URL"),
        ("http://[2606:4700::1]internal/", "beside|valid URL"),
        ("http://[2606:4700::1]internal:80/", "beside|valid URL"),
        ("http://[2606:4700::1]@127.0.0.1/", "user name|valid URL"),
        ("http://[2130706433]/", "IPv6|valid URL"),
        ("http://[v1.internal]/", "IPv6|valid URL"),
        ("http://[127.0.0.1]/", "IPv6|valid URL"),
        ("http://0/", "ambiguous"),
        ("http://0x/", "ambiguous"),
        ("http://0xA9FEA9FE/", "ambiguous"),
        ("http://2852039166/", "ambiguous"),
        ("http://0251.0376.0251.0376/", "ambiguous"),
        ("http://127.0.0.1.:80/", "ambiguous"),
        ("http://0x7f.1/", "ambiguous"),
        ("http://0x7f000001/", "ambiguous"),
        ("http://2130706433/", "ambiguous"),
        ("http://017700000001/", "ambiguous"),
        ("http://0177.0.0.1/", "ambiguous"),
        ("http://127.1/", "ambiguous"),
        ("http://127.0.0.1./", "ambiguous"),
        ("http://127.0.0.0x1/", "ambiguous"),
        ("http://1.2.3.4.5/", "ambiguous"),
        ("http://256.1.1.1/", "ambiguous"),
        ("http://\uff11\uff12\uff17.\uff11/", "ambiguous"),
        ("http://127\u30021/", "ambiguous"),
        ("http://127%2e0%2e0%2e1/", "valid name"),
        ("http://exa%6dple.com/", "valid name"),
        ("http://example..com/", "valid name"),
        ("http://.example.com/", "valid name"),
        ("http://-a.example/", "valid name"),
        ("http://" + "a" * 64 + ".example/", "valid name"),
        ("http://" + "a." * 130 + "example/", "valid name"),
        ("http://exa<mple.com/", "valid name"),
        ("http://ex☃\u200d.example/", "valid name"),
        ("https://example.com/" + "a" * 2048, "longer"),
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused_with_the_reason(given, reason):
    with pytest.raises(DestinationUrlRefused, match=reason):
        normalised_url(given)


@pytest.mark.parametrize(
    "host",
    [
        "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
        "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
        "127\u30020\uff0e0\uff611",
    ],
)
def test_digits_and_dots_of_any_script_are_seen_as_the_address_that_they_become(host):
    assert normalised_url(f"http://{host}/") == "http://127.0.0.1/"
