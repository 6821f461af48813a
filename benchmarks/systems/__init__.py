"""The systems that are measured: each file starts one and says how it is asked."""

import dataclasses
import random
import socket
import urllib.request


@dataclasses.dataclass(frozen=True, slots=True)
class Provider:
    """The mock provider behind every system: `url` ends in /v1."""

    url: str
    key: str

    @property
    def root(self) -> str:
        """Where its own routes (/stats, /reset) are."""
        return self.url.removesuffix("/v1")


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    while True:
        port = random.randrange(20_000, 32_000)  # below the range from which outgoing connections take theirs
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))  # noqa: S104
            except OSError:
                continue
            return port


def listening(port: int) -> bool:
    """Whether somebody accepts connections on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def healthy(port: int, path: str = "/health") -> bool:
    """Whether the server on the loopback port answers 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
