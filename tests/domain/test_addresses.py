import ipaddress

import pytest

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

PASSED = [
    "1.1.1.1",
    "8.8.8.8",
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
    "64:ff9c::1",
    "::ffff:8.8.8.8",
]


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_public_are_refused(address):
    assert refusal(address) is not None


@pytest.mark.parametrize("address", PASSED)
def test_public_addresses_pass_up_to_the_edges_of_the_refused_networks(address):
    assert refusal(address) is None


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("10.1.2.3", "10.1.2.3 is a private address"),
        ("::ffff:127.0.0.1", "127.0.0.1 is a loopback address"),
        ("fe80::1%eth0", "fe80::1 is a link-local address"),
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
    ],
)
def test_the_operator_can_allow_networks_and_only_those(cidr, address, passes):
    allowed = [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network(cidr)]
    assert (refusal(address, allowed) is None) is passes
