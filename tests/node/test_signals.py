"""What a node does when it is told: SIGHUP, SIGTERM, and SIGTERM again."""

from __future__ import annotations

import signal
import socket
import ssl
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest
from websockets.exceptions import ConnectionClosed

from tests.harness.certificates import Identity, make_identity, trust
from tests.harness.chat_socket import connected
from tests.harness.node_process import NodeProcess, wait_for

if TYPE_CHECKING:
    from pathlib import Path

SHUTDOWN: Final = 3001


def install(source: Identity, target: Identity) -> None:
    target.certificate.write_bytes(source.certificate.read_bytes())
    target.key.write_bytes(source.key.read_bytes())


def shown(node: NodeProcess) -> bytes:
    """The certificate that a new connection is shown, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", node.port), timeout=30) as sock, context.wrap_socket(sock) as encrypted:
        return encrypted.getpeercert(binary_form=True) or b""


def der(identity: Identity) -> bytes:
    return ssl.PEM_cert_to_DER_cert(identity.certificate.read_text())


@pytest.mark.slow
def test_sighup_changes_the_certificate_of_new_connections(tmp_path: Path) -> None:
    first, second = make_identity(tmp_path, "first"), make_identity(tmp_path, "second")
    served = Identity(tmp_path / "served.crt", tmp_path / "served.key")
    install(first, served)
    settings = {"LISTEN__TLS_CERTIFICATE": served.certificate, "LISTEN__TLS_KEY": served.key}
    trusts = {identity: trust(identity) for identity in (first, second)}
    with (
        NodeProcess(tmp_path, settings=settings) as node,
        connected(node.url, "ann", trusts[first]) as ann,
    ):
        assert node.url.startswith("wss://")
        assert "publish" in ann.publish("room", "m1")

        served.key.write_text("not a key")
        node.tell(signal.SIGHUP)
        line = node.wait_line("certificate not reloaded")
        assert line["level"] == "error"
        assert line["reason"].startswith(
            f"The certificate {served.certificate} with the key {served.key} can't be used"
        )
        assert "exception" not in line
        assert shown(node) == der(first)

        install(second, served)
        node.tell(signal.SIGHUP)
        node.wait_line("certificate reloaded")
        assert shown(node) == der(second)
        assert "publish" in ann.publish("room", "m2")
        with connected(node.url, "bob", trusts[second]) as bob:
            assert bob.history("room") == [(1, "m1"), (2, "m2")]


@pytest.mark.slow
def test_sighup_without_tls_reads_the_sites_again_and_says_so(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node, connected(node.url, "ann") as ann:
        node.tell(signal.SIGHUP)
        assert node.wait_line("sites reloaded")["sites"] == 1
        assert "publish" in ann.publish("room", "m1")


@pytest.mark.slow
def test_sigterm_sends_clients_away_and_keeps_what_they_said(tmp_path: Path) -> None:
    with NodeProcess(tmp_path) as node, connected(node.url, "ann") as ann:
        assert "publish" in ann.publish("room", "m1")
        node.tell(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            next(ann.pushes())
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == SHUTDOWN
        assert node.wait_ended() == 0
        assert node.lines("drained")
        node.start()
        with connected(node.url, "bob") as bob:
            assert bob.history("room") == [(1, "m1")]


@pytest.mark.slow
def test_while_it_drains_nobody_gets_in_and_a_second_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    # A client every half a second, of so many, is a drain that this test does not wait for.
    settings = {"HUB__DRAIN_SECONDS": 3600, "HUB__DRAIN_COHORT": 1}
    with NodeProcess(tmp_path, settings=settings) as node, ExitStack() as clients:
        open_clients = [clients.enter_context(connected(node.url, f"user-{number}")) for number in range(200)]
        assert "publish" in open_clients[-1].publish("room", "m1")
        node.tell(signal.SIGTERM)
        assert node.wait_line("draining")["connections"] == len(open_clients)
        assert node.ready().code == 503

        def is_refused() -> bool:
            try:
                socket.create_connection(("127.0.0.1", node.port), timeout=30).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_for("nobody gets in", is_refused)
        assert "publish" in open_clients[-1].publish("room", "m2")
        node.tell(signal.SIGTERM)
        assert node.wait_ended() == 0
        assert node.lines("stopped at once")
        assert not node.lines("drained")
        clients.pop_all()
        for client in open_clients:
            client.connection.socket.close()
        node.start()
        with connected(node.url, "bob") as bob:
            assert bob.history("room") == [(1, "m1"), (2, "m2")]
