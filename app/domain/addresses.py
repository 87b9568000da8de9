"""Which network addresses destinations may have (SSRF rules).

A webhook's URL comes from a user, the request leaves from inside our network: whatever is not a
public unicast address is refused unless the operator's allow-list names it. The check belongs
where a connection is made, on the very address that is connected; a name may resolve to something
else a second later (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA special-purpose registries (RFC 6890 and successors), and what else never is a receiver.
_REFUSED: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "an address of this host"),
    ("10.0.0.0/8", "a private address"),
    ("100.64.0.0/10", "a shared address (carrier-grade NAT)"),
    ("127.0.0.0/8", "a loopback address"),
    ("168.63.129.16/32", "a platform's metadata address"),
    ("169.254.0.0/16", "a link-local address"),
    ("172.16.0.0/12", "a private address"),
    ("192.0.0.0/24", "an address for protocol assignments"),
    ("192.0.2.0/24", "an address for documentation"),
    ("192.88.99.0/24", "a 6to4 relay address"),
    ("192.168.0.0/16", "a private address"),
    ("198.18.0.0/15", "an address for benchmarks"),
    ("198.51.100.0/24", "an address for documentation"),
    ("203.0.113.0/24", "an address for documentation"),
    ("224.0.0.0/4", "a multicast address"),
    ("240.0.0.0/4", "a reserved or broadcast address"),
    ("::/128", "the unspecified address"),
    ("::1/128", "a loopback address"),
    ("::/96", "an IPv4-compatible address"),
    ("::ffff:0:0:0/96", "an IPv4-translated address"),
    ("64:ff9b::/96", "a NAT64 address"),
    ("64:ff9b:1::/48", "a NAT64 address"),
    ("100::/64", "a discard address"),
    ("100:0:0:1::/64", "a dummy address"),
    ("2001::/23", "an address for protocol assignments (Teredo, ORCHID)"),
    ("2001:db8::/32", "an address for documentation"),
    ("2002::/16", "a 6to4 address"),
    ("3fff::/20", "an address for documentation"),
    ("5f00::/16", "a segment routing address"),
    ("fc00::/7", "a private address"),
    ("fe80::/10", "a link-local address"),
    ("fec0::/10", "a site-local address"),
    ("ff00::/8", "a multicast address"),
)
# Of IPv6, only this is handed out to the public; the rest is special, deprecated or somebody's
# overlay network (Yggdrasil lives in 200::/7).
_GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")


@lru_cache(maxsize=1)
def _refused_networks() -> dict[int, list[tuple[Network, str]]]:
    networks: dict[int, list[tuple[Network, str]]] = {4: [], 6: []}
    for cidr, what in _REFUSED:
        network = ipaddress.ip_network(cidr)
        networks[network.version].append((network, what))
    return networks


def refusal(address: str, allowed: Iterable[Network] = ()) -> str | None:
    """Say why a connection to ``address`` is refused, or None when it is fine.

    Args:
        address: a numeric address; an IPv6 zone (``%eth0``) is understood.
        allowed: networks that the operator vouches for.
    """
    try:
        parsed = unwrapped(address)
    except ValueError:
        return f"{address!r} is not a numeric address"
    if any(parsed in network for network in allowed):
        return None
    for network, what in _refused_networks()[parsed.version]:
        if parsed in network:
            return f"{parsed} is {what}"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed not in _GLOBAL_UNICAST_V6:
        return f"{parsed} is not a global unicast address"
    return None


def unwrapped(address: str) -> Address:
    """Parse an address; an IPv4-mapped IPv6 address counts as what it carries.

    Raises:
        ValueError: not an address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
