"""The cluster in the configuration: how addresses are read, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.address import Address, Peer, is_wildcard, read_address, read_peer
from edge_config.cluster import Cluster, Plain
from edge_config.faults import ConfigError
from edge_config.load import load
from edge_config.notices import notices

if TYPE_CHECKING:
    from pathlib import Path

    from edge_config.schema import Config

GOOD = """
listen = "10.0.0.1:7400"
peers = ["eu-1=10.0.0.1:7400", "us-1=us.example:7400", "ap-1=[fd00::3]:7400"]
central = "central=10.0.0.9:7400"
"""


def loaded(folder: Path, text: str) -> Config:
    path = folder / "c.toml"
    path.write_text(f"[cluster]\n{text}\n")
    return load(path, {}, {})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:7400", Address("10.0.0.1", 7400)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65_535)),
        ("eu-1.mesh.example:7400", Address("eu-1.mesh.example", 7400)),
        ("*:7400", Address("*", 7400)),
        *((bad, None) for bad in ("", ":7400", "a", "a:", "a:b", "a:65536", "a:-1", "a:٣", "a:" + "9" * 9999)),
        *((bad, None) for bad in ("::1:7400", "[a]:7400", "[::1]", "[::1%e", "a b:1", "a/b:1", "-a:1")),
        ("a" * 254 + ":1", None),
    ],
)  # fmt: skip
def test_an_address_is_a_host_and_a_port(text: str, address: Address | None) -> None:
    assert read_address(text) == address
    assert address is None or str(address) == text


@given(st.text(max_size=30))
def test_an_address_that_is_read_is_written_so_that_it_is_read_the_same(text: str) -> None:
    address = read_address(text)
    assert address is None or read_address(str(address)) == address


@pytest.mark.parametrize("text", ["a", "a=", "=a:1", "a b=c:1", "a=b", "a=b:0", "a=0.0.0.0:1", "a=[::]:1", "a=*:1"])
def test_what_nobody_can_connect_to_is_no_peer(text: str) -> None:
    assert read_peer(text) is None


@pytest.mark.parametrize(
    ("host", "is_one"), [("0.0.0.0", True), ("::", True), ("*", True), ("::1", False), ("a", False)]
)
def test_a_wildcard_is_all_addresses_of_the_machine(host: str, is_one: bool) -> None:
    assert is_wildcard(host) is is_one


def test_without_the_section_a_node_is_of_no_cluster() -> None:
    cluster = load(None, {}, {}).cluster
    assert (cluster.address, cluster.register, cluster.seeds, cluster.reached_at) == (None, None, (), "")
    assert cluster.host


def test_a_machine_of_any_name_can_run_a_node_by_itself() -> None:
    assert Cluster(host="(none)").host == "(none)"
    with pytest.raises(ConfigError, match=r"host = '\(none\)': not a name"):
        Cluster(host="(none)", listen="10.0.0.1:7400", central="c=10.0.0.9:7400")


def test_the_section_says_where_nodes_meet(tmp_path: Path) -> None:
    cluster = loaded(tmp_path, GOOD).cluster
    assert cluster.address == Address("10.0.0.1", 7400)
    assert cluster.seeds[1:] == (Peer("us-1", Address("us.example", 7400)), Peer("ap-1", Address("fd00::3", 7400)))
    assert cluster.register == Peer("central", Address("10.0.0.9", 7400))
    assert cluster.reached_at == "10.0.0.1"
    assert cluster.keys_in(tmp_path) == tmp_path / "keys"
    assert loaded(tmp_path, GOOD + "keys = 'secret'").cluster.keys_in(tmp_path / "data") == tmp_path / "secret"


def test_publications_have_the_next_port_unless_another_is_given() -> None:
    central = "central=127.0.0.1:7400"
    assert Cluster(listen="127.0.0.1:7400", central=central).publish_at(7400) == 7401
    assert Cluster(listen="127.0.0.1:0", central=central).publish_at(40_001) == 0
    assert Cluster(listen="127.0.0.1:7400", central=central, publish_port=9).publish_at(7400) == 9


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("peers = ['a=b:1']", "peers = ('a=b:1',): the node is of no cluster"),
        ("plain = 'anywhere'", "plain = 'anywhere': the node is of no cluster"),
        ("listen = '10.0.0.1'\ncentral = 'c=b:1'", "not an address with a port. Give HOST:PORT"),
        ("listen = '10.0.0.1:1'", "nobody would keep the register of the cluster. Give cluster.central too"),
        ("listen = '0.0.0.0:1'\ncentral = 'c=b:1'", "nobody can connect to that address"),
        ("listen = '0.0.0.0:1'\nadvertise = '[::]'\ncentral = 'c=b:1'", "advertise = '[::]': not the name or address"),
        ("listen = '0.0.0.0:1'\nadvertise = '::'\ncentral = 'c=b:1'", "advertise = '::': not the name or address"),
        (GOOD + "publish_port = 7400", "the port of listen has this number already"),
        ("listen = 'a:65535'\ncentral = 'c=b:1'", "there is no port after it"),
        ("listen = 'a:8000'\ncentral = 'c=b:1'", "listen.port has the number 8000 already"),
        ("listen = 'a:8999'\ncentral = 'c=b:1'", "publish_port = 0: listen.internal_port has the number 9000 already"),
        ("listen = 'a:1'\ncentral = 'b:1'", "central = 'b:1': not a node's name and where it is reached"),
        ("listen = 'a:1'\ncentral = 'c=b:1'\npeers = ['x=y']", "peers = 'x=y': not a node's name"),
        ("listen = 'a:1'\ncentral = 'c=b:1'\npeers = ['x=y:1', 'x=z:1']", "x is at y:1 too"),
        ("listen = 'a:1'\ncentral = 'c=b:1'\npeers = ['c=b:1']", "the central is no peer"),
        (GOOD + "plain = 'loopback'", "strangers could speak for nodes"),
        ("listen = '127.0.0.1:1'\ncentral = 'c=b:1'\nplain = 'loopback'", "only loopback is safe, and b is not"),
        (GOOD + "suspect_ms = 600", "a heartbeat that is late once would make a node suspect (heartbeat_ms = 250)"),
        (GOOD + "down_ms = 1499", "a node would be down before it is suspect (suspect_ms = 1500)"),
        (GOOD + "host = 'a b'", "host = 'a b': not a name of letters"),
        (GOOD + "nodes = 1", "from 2 to 1024"),
    ],
)
def test_what_can_not_work_is_refused_with_a_mend(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert complaint in str(caught.value)
    assert len(caught.value.faults) == 1


def test_plain_is_taken_on_loopback_and_where_it_is_asked_for(tmp_path: Path) -> None:
    near = "listen = '127.0.0.1:0'\ncentral = 'c=[::1]:1'\npeers = ['a=localhost:2']\nplain = 'loopback'"
    config = loaded(tmp_path, near)
    assert config.cluster.plain is Plain.LOOPBACK
    assert not any("cluster.plain" in line for line in notices(config))
    config = loaded(tmp_path, GOOD + "plain = 'anywhere'")
    assert any("cluster.plain = anywhere" in line for line in notices(config))
