"""Private addresses that tenants' URLs may lead to all the same, by setting: for development."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

_NAME = re.compile(r"([a-z0-9._-]+)(?::([0-9]{1,5}))?|\[([0-9a-f:.]+)\]:([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class AllowList:
    """`hosts`: names or addresses, each with a port, or None for any."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "AllowList":
        """From `localhost:9000, 10.0.0.0/8, [::1]:80`. Raises ValueError naming what cannot be read."""
        hosts: set[tuple[str, int | None]] = set()
        networks: list[IPv4Network | IPv6Network] = []
        for one in filter(None, (part.strip().lower() for part in text.split(","))):
            if network := _network(one):
                networks.append(network)
            elif found := _NAME.fullmatch(one):
                port = found[2] or found[4]
                hosts.add((found[1] or found[3], int(port) if port else None))
            else:
                raise ValueError(f"{one!r} is no host, host:port or network")
        return cls(frozenset(hosts), tuple(networks))

    def has(self, host: str, port: int) -> bool:
        """Whether a name, or an address, is on the list."""
        host = host.lower()
        if (host, port) in self.hosts or (host, None) in self.hosts:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self.networks)


NONE = AllowList()


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None
