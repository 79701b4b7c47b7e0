"""Hosts in namespaces reach each other unless they are cut, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness import namespaces
from tests.harness.namespaces import Network, remove_stale
from tests.harness.node_process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.usefixtures("networks"), pytest.mark.slow]
PATIENCE_SECONDS = 20

ABANDONED = """
import subprocess, sys, time
from tests.harness.namespaces import Network
network = Network(["a", "b"]).__enter__()
child = subprocess.Popen((*network.prefix("a"), "sleep", "600"), stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(600)
"""


class Hosts:
    """A UDP socket on each host."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.sockets = {}
        for host in network.hosts:
            with network.inside(host):
                self.sockets[host] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self.sockets[host].bind((network.address(host), 4000))
                self.sockets[host].settimeout(PATIENCE_SECONDS)

    def send(self, source: str, target: str, text: bytes) -> None:
        self.sockets[source].sendto(text, (self.network.address(target), 4000))

    def hear(self, host: str) -> bytes:
        return self.sockets[host].recv(100)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with ExitStack() as stack:
        made = Hosts(stack.enter_context(Network(["a", "b", "c"])))
        for opened in made.sockets.values():
            stack.enter_context(opened)
        yield made


def test_hosts_hear_each_other(hosts: Hosts) -> None:
    for source, target in (("a", "b"), ("b", "a"), ("c", "a")):
        hosts.send(source, target, source.encode())
        assert hosts.hear(target) == source.encode()


def test_a_deaf_host_is_still_heard(hosts: Hosts) -> None:
    hosts.network.deafen("a", "b")
    hosts.send("b", "a", b"lost")
    hosts.send("a", "b", b"heard")
    assert hosts.hear("b") == b"heard"
    hosts.send("c", "a", b"of another")
    assert hosts.hear("a") == b"of another"
    assert hosts.network.cuts == {("b", "a")}
    hosts.network.heal()
    hosts.send("b", "a", b"healed")
    assert hosts.hear("a") == b"healed"
    assert hosts.network.cuts == frozenset()


def test_an_isolated_host_hears_nobody_until_it_heals(hosts: Hosts) -> None:
    hosts.network.isolate("a")
    hosts.send("a", "b", b"lost")
    hosts.send("c", "a", b"lost")
    hosts.send("c", "b", b"others")
    assert hosts.hear("b") == b"others"
    hosts.network.heal()
    hosts.network.heal()
    for target, source in (("b", "a"), ("a", "c")):
        hosts.send(source, target, b"healed")
        assert hosts.hear(target) == b"healed"


def test_a_cut_is_made_once(hosts: Hosts) -> None:
    hosts.network.cut("a", "b")
    hosts.network.cut("a", "b")
    hosts.network.heal()
    hosts.send("a", "b", b"healed")
    assert hosts.hear("b") == b"healed"


def test_networks_do_not_meet_and_go_with_their_processes() -> None:
    with Network(["a"]) as one, Network(["a"]) as other:
        assert one.address("a") == other.address("a")
        sleeper = subprocess.Popen((*one.prefix("a"), "sleep", "600"))
        with one.inside("a"), socket.socket() as listening:
            listening.bind((one.address("a"), 5000))
        with other.inside("a"), socket.socket() as listening:
            listening.bind((other.address("a"), 5000))
        names = {name for name in os.listdir(namespaces.FOLDER) if name.startswith(f"chat-{os.getpid()}-")}
        assert len(names) == 4
    assert sleeper.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert not names & set(os.listdir(namespaces.FOLDER))


def test_what_a_killed_process_left_is_removed() -> None:
    with subprocess.Popen((sys.executable, "-c", ABANDONED), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert [name for name in os.listdir(namespaces.FOLDER) if f"chat-{process.pid}-" in name]
        process.kill()
        process.wait()
    # Another that makes a network at the same time may be quicker.
    remove_stale()
    assert not [name for name in os.listdir(namespaces.FOLDER) if f"chat-{process.pid}-" in name]
    wait_for(f"process {child} has ended", lambda: not is_running(child))


def is_running(pid: int) -> bool:
    """Whether it is there, and not only waits for whoever inherited it to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_unknown_host_is_named() -> None:
    with Network(["a"]) as network, pytest.raises(KeyError, match="there is no host 'b'; there are a"):
        network.prefix("b")


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert namespaces.why_not() == "network namespaces need root; run this as root"


def test_without_a_tool_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None if tool == "nft" else f"/bin/{tool}")
    assert namespaces.why_not() == "nft is missing: apt-get install nftables"
