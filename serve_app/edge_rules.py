"""What stands at the edge by setting: who may ask from a browser, under which names, through which proxies."""

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

Network = IPv4Network | IPv6Network
LOOPBACK = "127.0.0.0/8,::1/128"
NAT64 = IPv6Network("64:ff9b::/96")  # the well-known prefix (RFC 6052, section 2.1)
BOUND = 4096  # addresses that are remembered
LONGEST = 45  # characters of an IPv6 address, with an IPv4 address in it
_HOST = re.compile(r"(\*\.)?[a-z0-9._-]+|\[[0-9a-f:.]+\]")


@dataclass(frozen=True, slots=True)
class EdgeRules:
    """`origins`: of browsers' pages, exact, as `https://app.example.com`; none: no page of another origin may ask.

    `hosts`: names under which the service is asked, `*.example.com` for all below one; none: any.
    `proxies`: who may say by `x-forwarded-for` for whom it asks. `hsts`: seconds; 0: not told.
    `head_bytes`, `head_fields`, `target_bytes`: of a request's head, at the most. `body_wait`: seconds that a whole
    body may take to come.
    """

    origins: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()
    proxies: "Proxies" = field(default_factory=lambda: Proxies(networks(LOOPBACK)))
    hsts: int = 0
    head_bytes: int = 32 * 1024
    head_fields: int = 100
    target_bytes: int = 8 * 1024
    body_wait: float = 30

    def names(self, host: str) -> bool:
        """Whether a request may name `host` (RFC 9110, section 7.2) as whom it asks."""
        if not self.hosts:
            return True
        name = _without_port(host.lower())
        return name in self.hosts or any(one.startswith("*.") and name.endswith(one[1:]) for one in self.hosts)

    def client(self, peer: str, forwarded: list[str]) -> str:
        """Whose request it is, where `peer` sent it with these `x-forwarded-for` headers: the last address in them that
        is no proxy of ours, since whoever stands before that may have written anything."""
        if not self.proxies.hold(peer):
            return peer
        for address in reversed([one.strip() for value in forwarded for one in value.split(",")]):
            held = self.proxies.hold(address)
            if held is None:
                return peer
            if not held:
                return address
            peer = address
        return peer


class Proxies:
    """Networks, and for addresses that were asked for whether they lie in one."""

    __slots__ = ("_known", "networks")

    def __init__(self, networks: tuple[Network, ...]) -> None:
        self.networks = networks
        self._known: dict[str, bool | None] = {}

    def hold(self, address: str) -> bool | None:
        """None where this is no address."""
        if len(address) > LONGEST:
            return None
        try:
            return self._known[address]
        except KeyError:
            if len(self._known) >= BOUND:
                self._known.clear()
            held = self._known[address] = self._look(address)
            return held

    def _look(self, address: str) -> bool | None:
        try:
            found = ip_address(address)
        except ValueError:
            return None
        one = getattr(found, "ipv4_mapped", None) or found
        return any(one in network for network in self.networks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Proxies) and self.networks == other.networks

    def __hash__(self) -> int:
        return hash(self.networks)


def counted_as(address: str) -> str:
    """What attempts are counted by. Who has one IPv6 address has all of its /64 (RFC 6177), so that is what counts; of
    one that stands for an IPv4 address it is that."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv4Address):
        return str(found)
    if found in NAT64:
        return str(IPv4Address(int(found) & 0xFFFF_FFFF))
    mapped = found.ipv4_mapped
    return str(IPv6Network((int(found) >> 64 << 64, 64))) if mapped is None else str(mapped)


def origins(text: str) -> tuple[str, ...]:
    """Raises ValueError for what is no origin (RFC 6454), and for `*`."""
    found = _listed(text)
    for one in found:
        parts = urlsplit(one)
        if parts.scheme not in ("http", "https") or not parts.hostname or one != f"{parts.scheme}://{parts.netloc}":
            raise ValueError(f"{one!r} is no origin such as https://app.example.com")
        if "*" in one or "@" in one or one != one.lower():
            raise ValueError(f"{one!r} must be one exact origin, in small letters")
    return found


def hosts(text: str) -> frozenset[str]:
    """Raises ValueError for what is no host name."""
    found = frozenset(one.lower() for one in _listed(text))
    for one in found:
        if not _HOST.fullmatch(one):
            raise ValueError(f"{one!r} is no host name, without a port, such as api.example.com or *.example.com")
    return found


def networks(text: str) -> tuple[Network, ...]:
    """Raises ValueError for what is neither an address nor a network."""
    return tuple(ip_network(one) for one in _listed(text))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name.rstrip(".") if colon and (port.isdigit() or not port) else host.rstrip(".")
