import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.addresses import refusal

REFUSED = [
    # IPv4: this host, private, shared, loopback, link-local, platform metadata
    "0.0.0.0",  # noqa: S104  (an address under test)
    "0.1.2.3",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.1.2.3",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.255.255",
    # IPv4: assignments, documentation, relays, benchmarks, multicast, reserved, broadcast
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    # IPv6
    "::",
    "::1",
    "::2",
    "::7f00:1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "64:ff9b:1:ffff::1",
    "100::1",
    "100:0:0:1::1",
    "2001::1",
    "2001:0:4137:9e76::1",
    "2001:10::1",
    "2001:db8::1",
    "2001:db8:ffff::1",
    "2002:7f00:1::1",
    "2002:c0a8:101::1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fdff:ffff::1",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ffff::1",
    # IPv6 that nobody hands out: overlays, deprecated, unassigned
    "::1:0:0:0",
    "64:ff9c::1",
    "200::1",
    "300:1234::1",
    "400::1",
    "1fff::1",
    "4000::1",
    "e000::1",
    "fe00::1",
    # IPv4 inside IPv6
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "0:0:0:0:0:ffff:c0a8:0001",
    # not addresses
    "localhost",
    "",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0177.0.0.1",
]

# Of each refused network: the last address in front of it, its first, its last, the first behind.
# None where the neighbour is refused for a reason of its own.
EDGES = [
    (None, "0.0.0.0", "0.255.255.255", "1.0.0.0"),  # noqa: S104  (an address under test)
    ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
    ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
    ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
    ("168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17"),
    ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
    ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
    ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
    ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"),
    ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"),
    ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
    ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"),
    ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"),
    ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"),
    ("223.255.255.255", "224.0.0.0", "239.255.255.255", None),
    (None, "240.0.0.0", "255.255.255.255", None),
    (None, "::", "::ffff:ffff", None),
    (None, "::ffff:0:0:0", "::ffff:0:ffff:ffff", None),
    (None, "64:ff9b::", "64:ff9b::ffff:ffff", None),
    (None, "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", None),
    (None, "100::", "100::ffff:ffff:ffff:ffff", None),
    (None, "100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", None),
    (None, "::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2000::"),
    ("2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001::", "2001:1ff:ffff::", "2001:200::"),
    ("2001:db7:ffff::", "2001:db8::", "2001:db8:ffff::", "2001:db9::"),
    ("2001:ffff:ffff::", "2002::", "2002:ffff:ffff::", "2003::"),
    ("3ffe:ffff:ffff::", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"),
    ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "5eff:ffff::", None),
    (None, "5f00::", "5f00:ffff::", None),
    (None, "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    (None, "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    (None, "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    (None, "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
]

PASSED = [
    "1.1.1.1",
    "8.8.8.8",
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "2a00:1450::1",
    "3ffe::1",
    "2620:4f:8000::1",
    "::ffff:8.8.8.8",
]


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_public_are_refused(address):
    assert refusal(address) is not None


@pytest.mark.parametrize("address", PASSED)
def test_public_addresses_pass_up_to_the_edges_of_the_refused_networks(address):
    assert refusal(address) is None


@pytest.mark.parametrize(("before", "first", "last", "behind"), EDGES)
def test_networks_are_refused_from_their_first_address_to_their_last(before, first, last, behind):
    assert refusal(first) is not None
    assert refusal(last) is not None
    assert [refusal(one) for one in (before, behind) if one] in ([], [None], [None, None])


@given(st.ip_addresses())
def test_what_passes_is_public_by_the_standard_library_too(address):
    meant = getattr(address, "ipv4_mapped", None) or address
    public = meant.is_global and not meant.is_multicast and not meant.is_reserved
    assert public or refusal(str(address)) is not None


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("10.1.2.3", "10.1.2.3 is a private address"),
        ("::ffff:127.0.0.1", "127.0.0.1 is a loopback address"),
        ("fe80::1%eth0", "fe80::1 is a link-local address"),
        ("200::1", "200::1 is not a global unicast address"),
        ("localhost", "'localhost' is not a numeric address"),
    ],
)
def test_a_refusal_says_what_the_address_is(address, sentence):
    assert refusal(address) == sentence


@pytest.mark.parametrize(
    ("cidr", "address", "passes"),
    [
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.0/8", "::ffff:127.0.0.1", True),
        ("127.0.0.0/8", "10.0.0.1", False),
        ("127.0.0.0/8", "::1", False),
        ("::1/128", "::1", True),
        ("10.2.0.0/16", "10.2.255.255", True),
        ("10.2.0.0/16", "10.3.0.0", False),
        ("fd00::/8", "fd12::1", True),
        ("200::/7", "201::1", True),
        ("127.0.0.0/8", "64:ff9b::7f00:1", False),
        ("127.0.0.0/8", "2002:7f00:1::", False),
        ("127.0.0.0/8", "::127.0.0.1", False),
        ("0.0.0.0/0", "::1", False),
    ],
)
def test_the_operator_can_allow_networks_and_only_those(cidr, address, passes):
    allowed = [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network(cidr)]
    assert (refusal(address, allowed) is None) is passes
