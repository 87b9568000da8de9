"""The guard around destinations' URLs against everything, judged by what is not ours.

An address is public or not by ``ipaddress``; what a C library would read as one is found by
``inet_aton``; and three parsers must find the same host and port in a URL that was let through.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from app.domain.addresses import refusal
from app.domain.errors import DestinationUrlRefused
from app.domain.urls import MAX_URL_LENGTH, normalised_url
from worker.resolver import AddressRefused, NameUnresolved, VettedResolver

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)
# Public for the standard library, and refused all the same: relays and a platform's own.
MORE_V4 = [ipaddress.ip_network(one) for one in ("192.0.0.0/24", "192.88.99.0/24")]
MORE_V4 += [ipaddress.ip_network("168.63.129.16/32")]
# Newer than the standard library of the oldest Python that is supported.
DOCUMENTATION_V6 = ipaddress.ip_network("3fff::/20")


def is_public(address):
    """Tell whether a standard library address is one that anybody may call, or nearly."""
    if address.version == 4:
        return address.is_global and not (address.is_multicast or address.is_reserved)
    if address.ipv4_mapped:
        return is_public(address.ipv4_mapped)
    tunnelled = address.sixtofour or address.teredo
    handed_out = address in ipaddress.ip_network("2000::/3") and address not in DOCUMENTATION_V6
    return address.is_global and handed_out and not tunnelled


PRIVATE_V4 = V4.filter(lambda one: not is_public(one))


# Spellings of an IPv4 address


def number(value, base, zeros):
    octal, plain = f"0{zeros}{value:o}", f"{zeros}{value}"
    return {8: octal, 10: plain, 16: f"0x{zeros}{value:x}", 17: f"0X{zeros}{value:X}"}[base]


@st.composite
def in_numbers(draw, address):
    """One to four numbers, each in a base of its own, as ``inet_aton`` reads them."""
    packed, count = address.packed, draw(st.integers(1, 4))
    values = [*packed[: count - 1], int.from_bytes(packed[count - 1 :], "big")]
    bases = st.lists(st.sampled_from([8, 10, 16, 17]), min_size=count, max_size=count)
    zeros = draw(st.sampled_from(["", "", "0", "000"]))
    return ".".join(number(*one, zeros) for one in zip(values, draw(bases), strict=True))


@st.composite
def in_other_scripts(draw, address):
    """Digits and dots that UTS 46 maps to those of ASCII."""
    zeros = draw(st.sampled_from(["0", "\uff10", "\U0001d7ce", "\U0001d7d8", "\U0001d7f6"]))
    digits = {str(n): chr(ord(zeros) + n) for n in range(10)}
    dot = draw(st.sampled_from([".", "\u3002", "\uff0e", "\uff61"]))
    return "".join(digits.get(one, dot) for one in str(address))


@st.composite
def in_ipv6(draw, address):
    """Every IPv6 address that carries an IPv4 address, in brackets."""
    inner = int(address)
    carrier = draw(
        st.sampled_from(
            [
                0xFFFF << 32,  # mapped
                0,  # compatible
                0xFFFF << 48,  # translated
                0x0064_FF9B << 96,  # NAT64
                0x0064_FF9B_0001 << 80,  # NAT64, of one's own
                (0xFE80 << 112) | (0x5EFE << 32),  # ISATAP
            ]
        )
    )
    carried = draw(
        st.sampled_from(
            [
                carrier | inner,
                (0x2002 << 112) | (inner << 80) | 1,  # 6to4
                (0x2001 << 112) | (inner << 64) | 0xFFFF_FFFF,  # Teredo: the server
                (0x2001 << 112) | (inner ^ 0xFFFF_FFFF),  # Teredo: the client
            ]
        )
    )
    written = ipaddress.IPv6Address(carried)
    tail = f"{written.exploded[:-9]}{address}"
    dotted = tail if carried & 0xFFFF_FFFF == inner else str(written)
    text = draw(st.sampled_from([str(written), written.exploded, str(written).upper(), dotted]))
    return f"[{text}{draw(st.sampled_from(['', '', '%25eth0', '%eth0']))}]"


def as_it_is(address):
    return st.sampled_from([str(address), f"[{address}]", str(address).replace(".", "%2e")])


SPELLERS = [as_it_is, in_numbers, in_other_scripts, in_ipv6]


@st.composite
def dressed(draw, host):
    """A URL with a host, more often than not with something odd around it."""
    if draw(st.booleans()):
        return f"http://{host}/"
    host += draw(st.sampled_from(["", ".", "..", "%00", "%00.example.com", "\u3002"]))
    before = draw(st.sampled_from(["", "", "user@", "user:pass@", "example.com@", "@"]))
    port = draw(st.sampled_from(["", ":80", ":8443", ":0", ":65536", ":", ":+80", ":\uff18"]))
    scheme = draw(st.sampled_from(["http://", "https://", "HTTP://", "http:\\\\", "//", ""]))
    return scheme + before + host + port + draw(st.sampled_from(["", "/", "/hook?a=b", "\\x"]))


def host_of(url):
    """Return the host that would be called, None where the URL is refused by its form."""
    with suppress(DestinationUrlRefused):
        return URL(normalised_url(url)).raw_host
    return None


def may_be_called(url):
    """Tell whether a URL leads to an address that passes; one that leads to a name is no answer."""
    host = host_of(url)
    return host is not None and refusal(str(ipaddress.ip_address(host))) is None


@pytest.mark.parametrize("speller", SPELLERS)
@given(data=st.data())
def test_no_spelling_of_a_private_address_leads_there(speller, data):
    host = data.draw(PRIVATE_V4.flatmap(speller))
    assert not may_be_called(data.draw(dressed(host)))


@given(V4.flatmap(in_ipv6))
def test_no_ipv6_address_that_carries_an_ipv4_address_is_called(host):
    assert not may_be_called(f"http://{host}/")


@given(V4, st.sampled_from(["http", "https"]), st.none() | st.integers(1, 65535))
def test_a_plain_address_is_judged_as_what_it_is(address, scheme, port):
    url = f"{scheme}://{address}" + (f":{port}" if port else "")
    assert host_of(url) == str(address)
    listed = any(address in network for network in MORE_V4)
    assert may_be_called(url) is (is_public(address) and not listed)


@given(V4 | V6)
def test_what_passes_is_public(address):
    assert refusal(str(address)) is not None or is_public(address)
    if address.version == 6:
        assert refusal(address.exploded.upper() + "%eth0") == refusal(str(address))


@given(V4 | V6, st.lists(V4 | V6, max_size=3), st.integers(0, 128))
def test_an_allowed_network_lets_its_own_addresses_pass_and_no_others(address, others, bits):
    networks = [
        ipaddress.ip_network((one, min(bits, one.max_prefixlen)), strict=False)
        for one in [address, *others]
    ]
    meant = getattr(address, "ipv4_mapped", None) or address
    for allowed in (networks, networks[1:]):
        within = any(meant in one for one in allowed if one.version == meant.version)
        passes = within or refusal(str(address)) is None
        assert (refusal(str(address), allowed) is None) is passes


@given(st.text() | st.text("0123456789abcdefxABCDEF.:%[]-/ \0", max_size=45))
def test_whatever_is_no_address_is_refused(text):
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        assert refusal(text) is not None


# Whatever else may stand in a URL

PIECES = st.sampled_from(
    [
        *("http", "https", "ftp", ":", "//", "/", "\\", "@", "?", "#", "[", "]", "%", "%25", "&"),
        *("example.com", "localhost", "a_b", "xn--", "xn--bcher-kva", "b\u00fccher", "\u00df"),
        *("127.0.0.1", "0x7f", "0177", "2130706433", "8.8.8.8", "::1", "::", "2606:4700::1"),
        *("0", "1", "65536", "80", ".", "..", "-", "_", "+", ";", ",", "'", '"', "<", "\u00ad"),
        *("\u3002", "\uff0e", "\u2488", "\uff10", "\uff0f", "\uff1a", "\uff20", "\u2100", "\u212a"),
        *(
            " ",
            "\t",
            "\r\n",
            "\0",
            "\x7f",
            "\x85",
            "\u200d",
            "\u2028",
            "\ufeff",
            "\ud800",
            "\U0001f600",
        ),
    ]
)
TEXTS = st.text() | st.lists(PIECES, max_size=9).map("".join)
NAMES = st.sampled_from(["example.com", "localhost", "a_b.example.", "xn--bcher-kva.example"])
PUBLIC_V6 = st.integers(0x2600 << 112, (0x2600 << 112) | 0xFFFF).map(ipaddress.IPv6Address)
GOOD = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    NAMES | V4.map(str) | PUBLIC_V6.map("[{}]".format),
    st.just("") | st.integers(1, 65535).map(":{}".format),
    st.sampled_from(["/", "/hook", "/a//b/../c", "/a?b=%20&c=d?e", "/;a=b,c/@:!$'()*+"]),
)


@st.composite
def spoilt(draw, good, piece):
    """A good URL with something in it that does not belong there."""
    at = draw(st.integers(0, len(good)))
    return good[:at] + draw(piece) + good[at:]


URLS = st.one_of(
    TEXTS,
    TEXTS.map("http://{}".format),
    TEXTS.map("https://example.com{}".format),
    GOOD.flatmap(lambda good: spoilt(good, PIECES)),
    GOOD.flatmap(lambda good: spoilt(good, TEXTS)),
)
# RFC 3986, appendix B.
REFERENCE = re.compile(r"([^:/?#]+)://([^/?#]*)([^?#]*)(\?[^#]*)?", re.ASCII)
AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]+))?", re.ASCII)


@given(GOOD)
def test_a_good_url_is_kept_as_it_is(url):
    assert normalised_url(url) == url


FAULTS = {
    "what parsers drop": GOOD.flatmap(
        lambda good: spoilt(good, st.sampled_from([*map(chr, range(33)), "\\", "\x7f"]))
    ),
    "a surrogate": GOOD.flatmap(lambda good: spoilt(good, st.characters(categories=["Cs"]))),
    "a fragment": GOOD.flatmap(lambda good: spoilt(good, st.just("#"))),
    "a user": GOOD.map(lambda good: good.replace("://", "://user@")),
    "an empty user": GOOD.map(lambda good: good.replace("://", "://:@")),
    "another scheme": GOOD.map(lambda good: good.replace("http", "ftp")),
    "no host": GOOD.map(lambda good: good.replace("://", ":///")),
    "an interface": PUBLIC_V6.flatmap(
        lambda one: st.sampled_from([f"http://[{one}%25eth0]/", f"http://[{one}%1]/"])
    ),
    "something beside brackets": PUBLIC_V6.flatmap(
        lambda one: st.sampled_from([f"http://a[{one}]/", f"http://[{one}]a:80/"])
    ),
    "an odd port": st.sampled_from(
        ["0", "00", "", "65536", "x", "-1", "+80", "8 0", "80:80", "\uff18"]
    ).map("http://example.com:{}/".format),
    "an odd name": NAMES.flatmap(
        lambda name: st.sampled_from(
            [f"http://{'a' * 64}.{name}/", f"http://-{name}/", f"http://.{name}/"]
        )
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@given(data=st.data())
def test_one_fault_is_enough(fault, data):
    with pytest.raises(DestinationUrlRefused):
        normalised_url(data.draw(FAULTS[fault]))


@given(URLS)
@example("http://example.com/" + "a" * MAX_URL_LENGTH)
def test_a_url_is_refused_or_read_alike_by_everybody(url):
    try:
        normalised = normalised_url(url)
    except DestinationUrlRefused as error:
        (violation,) = error.violations
        assert violation.pointer == "/url"
        return
    assert normalised_url(normalised) == normalised
    assert normalised.encode()
    scheme, authority, _, _ = REFERENCE.fullmatch(normalised).groups()
    host, port = AUTHORITY.fullmatch(authority).groups()
    assert scheme in {"http", "https"}
    port = int(port) if port else {"http": 80, "https": 443}[scheme]
    assert 1 <= port <= 65535
    ours, theirs = URL(normalised), urlsplit(normalised)
    assert (ours.scheme, ours.raw_host, ours.port) == (scheme, host.strip("[]"), port)
    assert (theirs.hostname, theirs.port or port) == (host.strip("[]"), port)
    assert ours.raw_user is ours.raw_password is None
    assert re.fullmatch(r"[!-~]+", ours.raw_path_qs)
    require_one_reading(host)


def require_one_reading(host):
    """What the C library, or c-ares, reads as an address is written as that address."""
    if host.startswith("["):
        assert host == f"[{ipaddress.IPv6Address(host[1:-1])}]"
        return
    with suppress(OSError):
        assert socket.inet_ntoa(socket.inet_aton(host.rstrip("."))) == host


# Where a name leads


class Zone:
    """Answers every question alike."""

    def __init__(self, answer):
        self.answer = answer

    async def addresses(self, _):
        return self.answer

    async def close(self):
        pass


ANSWERS = st.lists(
    (V4 | V6).map(str) | V6.map(lambda one: f"{one}%eth0") | st.sampled_from(["", "127.1", "x"]),
    max_size=4,
)


@given(URLS | GOOD, ANSWERS, st.integers(1, 65535))
def test_only_vetted_addresses_are_connected_to(url, answer, port):
    host = host_of(url)
    if host is None:
        return

    async def resolve():
        resolver = VettedResolver(names=Zone(answer))
        try:
            return await resolver.resolve(host, port)
        finally:
            await resolver.close()

    asked = [host] if _is_address(host) else answer
    expected = [one for one in asked if refusal(one) is None]
    if not expected:
        with pytest.raises(AddressRefused if asked else NameUnresolved):
            asyncio.run(resolve())
        return
    connected = [info[4] for info in asyncio.run(resolve())]
    assert [(one[0], one[1]) for one in connected] == [(one, port) for one in expected]
    assert all(is_public(ipaddress.ip_address(one[0].partition("%")[0])) for one in connected)


def _is_address(host):
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
