"""Machines in network namespaces: each with an address of its own, on one bridge, and what cuts them off.

Nothing leaves the namespaces. Packets are dropped where they arrive, without a word to whoever sent them, by routing
rules: that takes `ip` alone.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

NETWORK = "10.99.0"
HEAD = "head"
BRIDGE, WIRE = "bridge", "wire"


def why_not() -> str | None:
    """What this machine lacks for namespaces; None where it has all."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    name = f"brain-probe-{os.getpid()}"
    try:
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "add", BRIDGE, "type", "bridge")
            _ip("-n", name, "link", "add", WIRE, "type", "veth", "peer", "name", "other")
            _ip("-n", name, "rule", "add", "pref", "10", "iif", WIRE, "ipproto", "tcp", "dport", "1", "blackhole")
        finally:
            _ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"this machine refuses them ({error.stderr.decode().strip()})"
    return None


@dataclass(frozen=True, slots=True)
class Machine:
    """One namespace. `name` is also that of the folder that it sees as /tmp."""

    name: str
    namespace: str
    address: str
    device: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What precedes a command that is to run there."""
        return ("ip", "netns", "exec", self.namespace)

    def drop(self, *what: str) -> None:
        """From now on, what arrives here and is as `what` says (as in `ip rule`) is lost."""
        _ip("-n", self.namespace, "rule", "add", "pref", "10", "iif", self.device, *what, "blackhole")

    def hear(self) -> None:
        """Nothing is lost any more."""
        with suppress(subprocess.CalledProcessError):
            while True:
                _ip("-n", self.namespace, "rule", "del", "pref", "10")

    def processes(self) -> list[psutil.Process]:
        told = _ip("netns", "pids", self.namespace).stdout.split()
        found = []
        for pid in map(int, told):
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
        return found

    def kill(self) -> None:
        """As when its power fails: nothing says goodbye."""
        mine = {os.getpid(), *(one.pid for one in psutil.Process().parents())}
        while others := [one for one in self.processes() if one.pid not in mine and _lives(one)]:
            for one in others:
                with suppress(psutil.NoSuchProcess):
                    one.suspend()  # first: what is killed one by one has time to say something
            for one in others:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(others, 2)


class Space:
    """The machines that were made, by name. The first one, the head, holds the bridge."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.machines: dict[str, Machine] = {}

    def add(self, name: str) -> Machine:
        number = len(self.machines) + 1
        head = not self.machines
        machine = Machine(name, f"brain-{self.mark}-{name}", f"{NETWORK}.{number}", BRIDGE if head else WIRE)
        inside = ("-n", machine.namespace)
        _ip("netns", "add", machine.namespace)
        self.machines[name] = machine
        if head:
            _ip(*inside, "link", "add", BRIDGE, "type", "bridge")
        else:
            bridge = self.machines[HEAD].namespace
            port = f"port{number}"
            _ip("-n", bridge, "link", "add", port, "type", "veth", "peer", "name", WIRE, "netns", machine.namespace)
            _ip("-n", bridge, "link", "set", port, "master", BRIDGE, "up")
        _ip(*inside, "addr", "add", f"{machine.address}/24", "dev", machine.device)
        for device in ("lo", machine.device):
            _ip(*inside, "link", "set", device, "up")
        # Rules that drop come before the one by which a machine knows its own addresses, which is the first by default.
        _ip(*inside, "rule", "add", "pref", "100", "lookup", "local")
        _ip(*inside, "rule", "del", "pref", "0")
        return machine

    def remove(self) -> None:
        """End what runs there, and forget the machines."""
        for machine in reversed(list(self.machines.values())):
            with suppress(subprocess.CalledProcessError):
                machine.kill()
                _ip("netns", "del", machine.namespace)
        self.machines.clear()


@contextmanager
def space(mark: str) -> Iterator[Space]:
    made = Space(mark)
    try:
        made.add(HEAD)
        yield made
    finally:
        made.remove()


def known(mark: str, names: tuple[str, ...]) -> Space:
    """The machines that another process made, in the order in which it made them."""
    found = Space(mark)
    for number, name in enumerate(names, 1):
        device = BRIDGE if number == 1 else WIRE
        found.machines[name] = Machine(name, f"brain-{mark}-{name}", f"{NETWORK}.{number}", device)
    return found


def folder_of(machine: Machine, base: Path) -> Path:
    """What the machine sees as /tmp."""
    folder = base / machine.name
    folder.mkdir(exist_ok=True)
    folder.chmod(0o1777)
    return folder


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _ip(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True)
