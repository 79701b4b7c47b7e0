"""Hosts on a network of their own, in network namespaces of this machine, and cuts between them.

    with Network(["clients", "eu", "us"]) as network:
        subprocess.Popen((*network.prefix("eu"), "chat-node", "run", ...))
        network.cut("eu", "us")

Each host has one address on a bridge, which lies in a namespace too: nothing of it is seen by the machine's own
network. It needs root, and iproute2 and nftables of Debian. Namespaces bear the process that made them in their names:
those whose process is gone, with all that runs in them, are removed by the next that makes some.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOLDER: Final = Path("/run/netns")  # where `ip netns` keeps them
SUBNET: Final = "10.77.0"
FIRST_HOST: Final = 11
MOST_HOSTS: Final = 200
CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
STEP_SECONDS: Final = 20  # for one command of `ip` or `nft`; never reached

_NAME: Final = re.compile(r"chat-(\d+)-(\d+)-(\d+)-\w+")
_numbers: Final = count(1)
_libc: Final = ctypes.CDLL(None, use_errno=True)

CUTS: Final = """
table ip faults {
    set cut { type ipv4_addr; }
    chain input {
        type filter hook input priority 0; policy accept;
        ip saddr @cut drop
    }
}
"""
"""What a host does not hear."""


class NotPermitted(Exception):
    """Namespaces can't be made here; says why."""


class Network:
    """Hosts that reach each other, until something is cut.

    Used as a context manager: all of it, and what still runs there, is gone after it.

    Args:
        hosts: Their names, of letters and digits.

    Raises:
        NotPermitted: It can't be made here.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        if len(hosts) > MOST_HOSTS:
            raise ValueError(f"{len(hosts)} hosts were asked for, a network has {MOST_HOSTS} at most")
        self._prefix = f"chat-{os.getpid()}-{birth(os.getpid())}-{next(_numbers)}"
        self._addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(hosts, FIRST_HOST)}
        self._cuts: set[tuple[str, str]] = set()

    def __enter__(self) -> Self:
        _require_tools()
        remove_stale()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._addresses)

    @property
    def cuts(self) -> frozenset[tuple[str, str]]:
        """What is cut: (from, to)."""
        return frozenset(self._cuts)

    def address(self, host: str) -> str:
        """Its IPv4 address."""
        return self._addresses[host]

    def prefix(self, host: str) -> tuple[str, ...]:
        """What is to stand before a command that is to run there."""
        return ("nsenter", f"--net={self._path(host)}", "--")

    @contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """This thread is there meanwhile; what sockets it makes stay there. Nothing may be awaited inside."""
        with open("/proc/thread-self/ns/net", "rb") as own, self._path(host).open("rb") as other:
            _enter(other.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())

    def socket(self, host: str) -> trio.socket.SocketType:
        """A TCP socket there, for a task."""
        with self.inside(host):
            return trio.socket.socket()

    def cut(self, one: str, other: str) -> None:
        """From now on neither hears the other."""
        self.deafen(one, other)
        self.deafen(other, one)

    def deafen(self, host: str, other: str) -> None:
        """From now on a host hears nothing of another, which goes on hearing it."""
        self._change("add", host, other)
        self._cuts.add((other, host))

    def isolate(self, host: str) -> None:
        """Cut a host from all others."""
        for other in self.hosts:
            if other != host:
                self.cut(host, other)

    def heal(self) -> None:
        """Nothing is cut any more."""
        for source, target in sorted(self._cuts):
            self._change("delete", target, source)
        self._cuts.clear()

    def close(self) -> None:
        """Kill what runs there, and remove it; nothing happens if that was done."""
        for name in sorted(_names()):
            if name.startswith(f"{self._prefix}-"):
                _remove(name)

    def _make(self) -> None:
        switch = f"{self._prefix}-switch"
        _run("ip", "netns", "add", switch)
        _run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "bridge", "up")
        for number, (host, address) in enumerate(self._addresses.items()):
            there, port = self._name(host), f"port{number}"
            _run("ip", "netns", "add", there)
            _run("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", there)
            _run("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
            _run("ip", "-n", there, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run("ip", "-n", there, "link", "set", device, "up")
            _run(*self.prefix(host), "nft", "-f", "-", text=CUTS)

    def _change(self, verb: str, host: str, other: str) -> None:
        element = f"{{ {self.address(other)} }}"
        _run(*self.prefix(host), "nft", verb, "element", "ip", "faults", "cut", element)

    def _name(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def _path(self, host: str) -> Path:
        if host not in self._addresses:
            raise KeyError(f"there is no host {host!r}; there are {', '.join(self.hosts)}")
        return FOLDER / self._name(host)


def why_not() -> str:
    """Why there can be no networks here; empty: there can be."""
    try:
        with Network(["probe"]):
            return ""
    except NotPermitted as reason:
        return str(reason)


def remove_stale() -> list[str]:
    """Remove the namespaces of processes that are gone, with what runs there; gives their names."""
    stale = []
    for name in sorted(_names()):
        if (made_by := _NAME.fullmatch(name)) and birth(int(made_by[1])) != made_by[2]:
            _remove(name)
            stale.append(name)
    return stale


def _names() -> list[str]:
    return os.listdir(FOLDER) if FOLDER.is_dir() else []


def _remove(name: str) -> None:
    pids = subprocess.run(
        ("ip", "netns", "pids", name), check=False, capture_output=True, text=True, timeout=STEP_SECONDS
    ).stdout.split()
    for pid in map(int, pids):
        if pid != os.getpid():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    subprocess.run(("ip", "netns", "delete", name), check=False, capture_output=True, timeout=STEP_SECONDS)


def birth(pid: int) -> str:
    """When a process began, in ticks since the machine's start: a number of its own, even if its pid is used again."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _require_tools() -> None:
    if os.geteuid() != 0:
        raise NotPermitted("network namespaces need root; run this as root")
    for tool, package in (("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")):
        if shutil.which(tool) is None:
            raise NotPermitted(f"{tool} is missing: apt-get install {package}")


def _run(*command: str, text: str | None = None) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=text, timeout=STEP_SECONDS)
    if done.returncode:
        raise NotPermitted(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.stdout.strip()}")


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "the network namespace can't be entered")
