"""URLs that tenants set: which addresses are public, and that a request reaches no other, whatever the name says."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters import outgoing
from adapters.addresses import is_public
from adapters.allow_list import NONE, AllowList
from adapters.outgoing import ForbiddenUrl, Outgoing, OutgoingFailed, check_url
from serve_app.settings import Settings

PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10"]
PRIVATE += ["0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4"]
PRIVATE_6 = ["fc00::/7", "fe80::/10", "ff00::/8", "::/96", "2001:db8::/32", "fec0::/10", "100::/64", "64:ff9b:1::/48"]


def inside(network: str) -> st.SearchStrategy[Any]:
    found = ip_network(network)
    return st.integers(0, found.num_addresses - 1).map(lambda number: found[number])


private = st.sampled_from(PRIVATE).flatmap(inside)
private_6 = st.sampled_from(PRIVATE_6).flatmap(inside)
suffix = st.integers(0, 2**64 - 1)


@given(private | private_6)
def test_no_private_address_is_public(address: IPv4Address | IPv6Address) -> None:
    assert not is_public(address)
    assert not is_public(str(address))


@given(private)
def test_no_private_address_hides_in_another(address: IPv4Address) -> None:
    number = int(address)
    for carried in (
        0xFFFF << 32 | number,  # mapped
        number,  # compatible
        0x64_FF9B << 96 | number,  # NAT64
        0x2002 << 112 | number << 80 | 1,  # 6to4
        0x2001_0000 << 96 | number ^ 0xFFFF_FFFF,  # Teredo
        0x2600 << 112 | 0x5EFE << 32 | number,  # ISATAP
        0x2600 << 112 | 0x0200_5EFE << 32 | number,
    ):
        assert not is_public(IPv6Address(carried)), IPv6Address(carried)


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address))
def test_what_is_public_is_global_by_the_standard_library_too(address: IPv4Address | IPv6Address) -> None:
    if (
        is_public(address)
        and getattr(address, "ipv4_mapped", None) is None
        and address not in ip_network("64:ff9b::/96")
    ):
        assert address.is_global and not address.is_multicast


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
def test_the_internet_is_public(address: str) -> None:
    assert is_public(address)
    assert check_url(f"https://{'[' + address + ']' if ':' in address else address}/").host == str(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "::ffff:169.254.169.254"],
)
def test_the_metadata_of_clouds_is_not(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(ForbiddenUrl):
        check_url(f"https://{'[' + address + ']' if ':' in address else address}/latest/meta-data")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "//example.com",
        "/path",
        "example.com",
        "http://example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "gopher://example.com",
        "javascript:alert(1)",
        "https://",
        "https://user@example.com",
        "https://user:password@example.com",
        "https://example.com:22",
        "https://example.com:80",
        "https://example.com:0",
        "https://example.com:99999",
        "https://exa mple.com",
        "https://example.com/\r\nx: y",
        "https://example.com\\@127.0.0.1",
        "https://127.0.0.1",
        "https://127.1",
        "https://2130706433",
        "https://0177.0.0.1",
        "https://[::1]",
        "https://[::]",
        "https://[fe80::1%25eth0]",
        "https://[::ffff:127.0.0.1]",
        "https://127.0.0.1:8443",
        "https://１２７.0.0.1",
    ],
)
def test_a_url_that_must_not_be_asked_is_refused_with_a_reason(url: str) -> None:
    with pytest.raises(ForbiddenUrl) as refusal:
        check_url(url)
    assert len(str(refusal.value)) > 10


@given(st.text(max_size=60) | st.text(max_size=40).map(lambda text: f"https://{text}"))
def test_no_text_trips_the_check(text: str) -> None:
    try:
        url = check_url(text)
    except ForbiddenUrl:
        return
    assert url.scheme == "https" and url.host and url.user is None and (url.port == 443 or (url.port or 0) >= 1024)


def test_the_list_for_development() -> None:
    allowed = AllowList.parse("localhost:9000, 10.1.0.0/16, hooks.internal, [::1]:80")
    assert check_url("http://localhost:9000/x", allowed).port == 9000
    assert check_url("http://10.1.2.3/x", allowed).host == "10.1.2.3"
    assert check_url("http://HOOKS.internal:22/x", allowed).port == 22
    assert check_url("http://[::1]/", allowed).host == "::1"
    for url in ("http://localhost:9001/", "http://10.2.0.1/", "http://127.0.0.1:9000/", "http://[::1]:81/"):
        with pytest.raises(ForbiddenUrl):
            check_url(url, allowed)


@pytest.mark.parametrize("text", ["http://localhost", "10.0.0.1/8", "a b"])
def test_a_list_that_cannot_be_read_is_told_at_the_start(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError):
        AllowList.parse(text)
    monkeypatch.setenv("BRAIN_OUTGOING_ALLOWED", text)
    with pytest.raises(ValidationError):
        Settings()
    monkeypatch.setenv("BRAIN_OUTGOING_ALLOWED", "")
    assert Settings().outgoing == NONE


# Requests, to a server that really listens on loopback.


class Names(AbstractResolver):
    """Says for each name one list of addresses after the other; the last one from then on."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self.names[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=one,
                port=port,
                family=socket.AF_INET6 if ":" in one else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for one in addresses
        ]

    async def close(self) -> None:
        pass


Say = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A server on 127.0.0.1 that counts who connects."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0
        self.heads: list[str] = []
        self.say: Say = self.fine

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await self.say(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def fine(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Some: header\r\ncontent-length: 4\r\n\r\nfine")
        await writer.drain()


@asynccontextmanager
async def listening() -> AsyncIterator[Server]:
    server = Server()
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with listening() as made:
        yield made


@pytest.fixture
def named(server: Server) -> AllowList:
    """Lets `good.example` be asked, with whatever address it has."""
    return AllowList.parse(f"good.example:{server.port}")


async def test_a_name_on_the_list_is_asked_and_what_it_says_comes_back(server: Server, named: AllowList) -> None:
    names = Names(good_example=[["127.0.0.1"]])
    async with Outgoing(named, resolver=names) as out:
        answer = await out.request("POST", f"http://good.example:{server.port}/x", {"x-a": "b"}, b"body")
    assert (answer.status, answer.body, answer.headers["x-some"]) == (200, b"fine", "header")
    assert server.heads[0].startswith("POST /x HTTP/1.1\r\nHost: good.example:")
    assert names.asked == ["good.example"]


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::ffff:127.0.0.1"], ["::1"], ["0.0.0.0"]]
)
async def test_a_name_that_leads_inside_is_not_asked(server: Server, addresses: list[str]) -> None:
    async with Outgoing(resolver=Names(evil_example=[addresses])) as out:
        with pytest.raises(ForbiddenUrl):
            await out.request("GET", f"https://evil.example:{server.port}/")
    assert server.connections == 0


async def test_a_name_that_changes_its_meaning_gains_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: public when it is checked, private when it is asked. The socket, which is never connected here,
    is the one to the address that was checked."""
    tried: list[str] = []
    make = outgoing._Checked.socket

    def noting(self: Any, info: Any) -> socket.socket:
        make(self, info).close()
        tried.append(info[4][0])
        raise OSError("there is no way from here")

    monkeypatch.setattr(outgoing._Checked, "socket", noting)
    names = Names(evil_example=[["1.1.1.1"], ["127.0.0.1"]])
    async with Outgoing(resolver=names) as out:
        with pytest.raises(OutgoingFailed):
            await out.request("GET", f"https://evil.example:{server.port}/")
        assert (names.asked, tried) == (["evil.example"], ["1.1.1.1"])
        with pytest.raises(ForbiddenUrl):  # the next request asks for the name anew
            await out.request("GET", f"https://evil.example:{server.port}/")
    assert (server.connections, tried) == (0, ["1.1.1.1"])


async def test_the_last_gate_stands_at_the_socket(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were both earlier checks gone, no connection would be made all the same."""
    monkeypatch.setattr(outgoing, "check_url", lambda text, _: aiohttp.client.URL(text))
    monkeypatch.setattr(outgoing._Checked, "resolve", lambda self, *a, **k: self._inner.resolve(*a, **k))
    async with Outgoing(resolver=Names(evil_example=[["127.0.0.1"]])) as out:
        for host in ("evil.example", "127.0.0.1", "[::ffff:127.0.0.1]"):
            with pytest.raises(ForbiddenUrl):
                await out.request("GET", f"http://{host}:{server.port}/")
    assert server.connections == 0


async def test_no_redirect_is_followed(server: Server, named: AllowList) -> None:
    async with listening() as inside:

        async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(
                f"HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:{inside.port}/\r\ncontent-length: 0\r\n\r\n".encode()
            )

        server.say = elsewhere
        async with Outgoing(named, resolver=Names(good_example=[["127.0.0.1"]])) as out:
            answer = await out.request("POST", f"http://good.example:{server.port}/")
        assert (answer.status, inside.connections) == (307, 0)


async def test_no_proxy_of_the_environment_is_used(
    server: Server, named: AllowList, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with Outgoing(named, resolver=Names(good_example=[["127.0.0.1"]])) as out:
            await out.request("GET", f"http://good.example:{server.port}/")
        assert proxy.connections == 0


@pytest.mark.parametrize("length", [b"content-length: 100000\r\n", b"connection: close\r\n"])
async def test_an_answer_too_large_is_given_up(server: Server, named: AllowList, length: bytes) -> None:
    async def much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + b"x" * 100_000)
        await writer.drain()

    server.say = much
    async with Outgoing(named, limit=5_000, resolver=Names(good_example=[["127.0.0.1"]])) as out:
        with pytest.raises(OutgoingFailed, match="more than 5000 bytes"):
            await out.request("GET", f"http://good.example:{server.port}/")


async def test_an_answer_that_drips_is_given_up(server: Server, named: AllowList) -> None:
    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await reader.read()  # until the other side has gone

    server.say = drips
    async with Outgoing(named, wait=0.3, resolver=Names(good_example=[["127.0.0.1"]])) as out:
        with pytest.raises(OutgoingFailed, match="no answer in time"):
            await out.request("GET", f"http://good.example:{server.port}/")


async def test_what_cannot_be_reached_or_read_fails_in_one_way(server: Server, named: AllowList) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"nonsense\r\n\r\n")

    server.say = nonsense
    async with Outgoing(named, wait=1, resolver=Names(good_example=[["127.0.0.1"]])) as out:
        for scheme in ("http", "https"):  # and where TLS was meant, none is spoken
            with pytest.raises(OutgoingFailed):
                await out.request("GET", f"{scheme}://good.example:{server.port}/")
