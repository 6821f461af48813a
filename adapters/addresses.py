"""Which addresses of the Internet anybody may be sent to, and which lead into somebody's own network.

By the special-purpose registries of IANA (RFC 6890 and what came after it), and the addresses at which clouds tell a
machine its credentials.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

_CLOSED_4 = tuple(
    ip_network(one)
    for one in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # behind a carrier's translation (RFC 6598); Alibaba's metadata is 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host
        "169.254.0.0/16",  # link-local; metadata of AWS, Google, Azure and others is 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata is 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # measurements
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_OPEN_6 = ip_network("2000::/3")  # all that is given out for unicast
_CLOSED_6 = tuple(
    ip_network(one)
    for one in (
        "2001::/23",  # protocol assignments, with Teredo, which carries an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address and a relay that nobody answers for
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def is_public(address: Address | str) -> bool:
    """Whether this leads to the Internet at large. One that carries another (mapped, NAT64) leads where that leads."""
    found = ip_address(address) if isinstance(address, str) else address
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return False
        if found.ipv4_mapped is not None:
            return is_public(found.ipv4_mapped)
        if found in _NAT64:
            return is_public(IPv4Address(int(found) & 0xFFFF_FFFF))
        if int(found) >> 32 & 0xFDFF_FFFF == 0x5EFE:  # ISATAP (RFC 5214) carries an IPv4 address
            return False
        return found in _OPEN_6 and not any(found in network for network in _CLOSED_6)
    return not any(found in network for network in _CLOSED_4)
