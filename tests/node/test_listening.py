"""Opening ports, and what is told when one can't be opened."""

import socket

import pytest

from node.faults import ListenFault
from node.listening import open_listeners


def test_a_free_port_is_chosen_and_listens() -> None:
    (listener,) = open_listeners("127.0.0.1", 0, 16, "listen.port")
    with listener, socket.create_connection(listener.getsockname(), timeout=5):
        assert not listener.getblocking()


def test_all_addresses_of_a_name_get_the_same_port() -> None:
    listeners = open_listeners("localhost", 0, 16, "listen.port")
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    for listener in listeners:
        listener.close()


def test_a_port_in_use_names_the_port_its_key_and_the_mend() -> None:
    (listener,) = open_listeners("127.0.0.1", 0, 16, "listen.port")
    port = listener.getsockname()[1]
    with listener, pytest.raises(ListenFault, match=rf"127\.0\.0\.1 port {port} \(listen\.port\): another process"):
        open_listeners("127.0.0.1", port, 16, "listen.port")


@pytest.mark.parametrize(
    ("host", "words"),
    [("192.0.2.1", "no such address"), ("no such host", "Correct the host"), ("host.invalid", "Correct the host")],
)
def test_a_host_that_can_not_be_listened_at_is_told(host: str, words: str) -> None:
    with pytest.raises(ListenFault, match=words):
        open_listeners(host, 0, 16, "listen.port")
