"""One attempt, against real servers that answer as badly as they can, and names that lead where they must not."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from node import webhook_post
from node.webhook_delivery import Outcome
from node.webhook_post import MOST_BODY_BYTES, REFUSALS, Answer, Trouble, Unanswered, is_public, post, read_retry_after
from tests.harness.certificates import make_identity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


Wrap: TypeAlias = "Callable[[trio.SocketStream], trio.abc.Stream]"


class Server:
    """Answers every request with `answer`, byte by byte if it is slow, and keeps what it got."""

    def __init__(self) -> None:
        self.answer = OK
        self.got = b""
        self.reads = True
        self.drips = False
        self.ends = True
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?x=1"

    async def serve(self, stream: trio.abc.Stream) -> None:
        try:
            async with stream:
                while self.reads and b"\r\n\r\n{}" not in self.got:
                    self.got += await stream.receive_some() or b"\r\n\r\n{}"
                for start in range(0, len(self.answer), 1 if self.drips else 65_536):
                    await stream.send_all(self.answer[start : start + (1 if self.drips else 65_536)])
                    await trio.sleep(0.05 if self.drips else 0)
                if not self.ends:
                    await trio.sleep_forever()
        except (trio.BrokenResourceError, ssl.SSLError):
            pass


@asynccontextmanager
async def serving(
    wrap: Callable[[trio.SocketStream], trio.abc.Stream] = lambda stream: stream,
) -> AsyncIterator[Server]:
    server = Server()

    async def serve(stream: trio.SocketStream) -> None:
        await server.serve(wrap(stream))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        server.port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(30):
            yield server
        nursery.cancel_scope.cancel()


async def send(url: str, *, allow_private: bool = True, seconds: float = 5.0) -> Answer:
    return await post(url, b"{}", {"X-Test": "a"}, seconds, allow_private=allow_private)


async def test_a_request_is_sent_whole_and_its_answer_read() -> None:
    async with serving() as server:
        answer = await send(server.url)
        head, _, body = server.got.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[0] == "POST /hook?x=1 HTTP/1.1"
        assert {"Content-Length: 2", "X-Test: a", f"Host: 127.0.0.1:{server.port}", "Connection: close"} <= set(lines)
        assert body == b"{}"
        assert (answer.status, answer.outcome, answer.address) == (200, Outcome.DELIVERED, "127.0.0.1")


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.DELIVERED), (204, Outcome.DELIVERED), (299, Outcome.DELIVERED), (301, Outcome.FAILED),
        (302, Outcome.FAILED), (401, Outcome.FAILED), (404, Outcome.FAILED), (408, Outcome.FAILED),
        (429, Outcome.FAILED), (500, Outcome.FAILED), (503, Outcome.FAILED), *((s, Outcome.REFUSED) for s in REFUSALS),
    ],
)  # fmt: skip
async def test_a_status_decides_what_becomes_of_a_batch(status: int, outcome: Outcome) -> None:
    async with serving() as server:
        server.answer = b"HTTP/1.1 %d X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 3\r\n\r\nwhy" % status
        answer = await send(server.url)
        assert (answer.status, answer.outcome) == (status, outcome)
        assert answer.text == ("" if status < 300 else "why")


async def test_an_informational_answer_comes_before_the_real_one() -> None:
    async with serving() as server:
        server.answer = b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK
        assert (await send(server.url)).status == 200


async def test_an_answer_counts_when_its_status_is_there_whatever_follows() -> None:
    async with serving() as server:
        server.ends = False
        server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
        assert (await send(server.url)).outcome is Outcome.DELIVERED
        server.answer = b"HTTP/1.1 500 X\r\n\r\n" + b"x" * 1_000_000
        assert (await send(server.url)).text == "x" * MOST_BODY_BYTES


async def test_a_server_that_answers_before_it_has_read_all_is_heard() -> None:
    async with serving() as server:
        server.reads = False
        server.answer = b"HTTP/1.1 413 Too Big\r\nContent-Length: 0\r\n\r\n"
        answer = await post(server.url, b"x" * 8_000_000, {}, 5.0, allow_private=True)
        assert answer.outcome is Outcome.REFUSED


@pytest.mark.parametrize(
    ("answer", "trouble", "complaint"),
    [
        (b"", Trouble.CONNECTION, "broke"),
        (b"nonsense\r\n\r\n", Trouble.PROTOCOL, "no HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, Trouble.PROTOCOL, "no HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nX: y", Trouble.PROTOCOL, "no HTTP/1.1|broke"),
    ],
)
async def test_what_is_no_answer_is_told(answer: bytes, trouble: Trouble, complaint: str) -> None:
    async with serving() as server:
        server.answer = answer
        with pytest.raises(Unanswered, match=complaint) as caught:
            await send(server.url)
        assert caught.value.trouble in {trouble, Trouble.CONNECTION}


async def test_a_server_that_hangs_or_drips_has_its_time_and_no_more() -> None:
    async with serving() as server:
        server.answer, server.ends = b"", False
        with pytest.raises(Unanswered, match=r"no answer within 0\.2 s") as caught:
            await send(server.url, seconds=0.2)
        assert caught.value.trouble is Trouble.TIMEOUT
        server.answer, server.drips = OK, True
        with pytest.raises(Unanswered, match=r"no answer within 0\.2 s"):
            await send(server.url, seconds=0.2)


async def test_a_receiver_may_say_how_long_it_wants_to_be_left_alone() -> None:
    async with serving() as server:
        server.answer = b"HTTP/1.1 503 X\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n"
        assert (await send(server.url)).retry_after == 120.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0), ("120", 120.0), ("", 0.0), ("soon", 0.0), ("-5", 0.0), ("1.5", 0.0), ("9" * 40, 0.0),
        ("\u0661", 0.0),
        ("Tue, 24 Nov 2026 14:00:30 GMT", 30.0), ("Tue, 24 Nov 2026 13:00:30 GMT", 0.0), ("Tue, 99 Nov 2026", 0.0),
    ],
)  # fmt: skip
def test_a_wait_is_read_in_seconds_or_as_a_date(value: str, seconds: float) -> None:
    assert read_retry_after(value, 1_795_528_800.0) == seconds


@given(st.text(max_size=40))
def test_whatever_stands_there_is_a_wait_or_none(value: str) -> None:
    assert read_retry_after(value, 0.0) >= 0.0


async def test_a_server_that_is_down_is_told() -> None:
    async with serving() as server:
        url = server.url
    with pytest.raises(Unanswered, match="Connection refused") as caught:
        await send(url)
    assert caught.value.trouble is Trouble.CONNECTION


async def test_a_name_that_does_not_exist_is_told() -> None:
    with pytest.raises(Unanswered, match=r"'nowhere\.invalid' can't be resolved") as caught:
        await send("http://nowhere.invalid/")
    assert caught.value.trouble is Trouble.NAME


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1", "::ffff:0:0",
    ],
)  # fmt: skip
def test_an_address_that_is_not_of_the_internet_is_known(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::"]
)
def test_an_address_of_the_internet_is_known(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1", "2130706433", "0x7f000001"])
async def test_a_receiver_on_this_machine_is_not_reached_unless_that_is_allowed(host: str) -> None:
    async with serving() as server:
        with pytest.raises(Unanswered, match=r"not on the internet; .* allow_private") as caught:
            await send(f"http://{host}:{server.port}/", allow_private=False)
        assert caught.value.trouble is Trouble.ADDRESS
        assert server.got == b""


class Names(trio.abc.HostnameResolver):
    """Resolves every name to the addresses that a test gives, each time to the next of them."""

    def __init__(self, answers: Sequence[Sequence[str]]) -> None:
        self.answers = list(answers)
        self.asked: list[object] = []

    @override
    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.answers.pop(0)]

    @override
    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@contextmanager
def resolving(*answers: Sequence[str]) -> Iterator[Names]:
    """Names lead to these addresses."""
    made = Names(answers)
    before = trio.socket.set_custom_hostname_resolver(made)
    try:
        yield made
    finally:
        trio.socket.set_custom_hostname_resolver(before)


async def test_the_address_that_was_looked_at_is_the_one_that_is_asked() -> None:
    async with serving() as server:
        with resolving(["127.0.0.1"], ["10.9.9.9"]) as names:
            assert (await send(f"http://moving.example:{server.port}/")).status == 200
        assert names.asked == [b"moving.example"], "a second look might lead elsewhere"


async def test_of_a_name_with_private_and_public_addresses_only_the_public_ones_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    async def refuse(host: str, _port: int) -> None:
        await trio.lowlevel.checkpoint()
        tried.append(host)
        raise ConnectionRefusedError(111, "no")

    monkeypatch.setattr(trio, "open_tcp_stream", refuse)
    with resolving(["127.0.0.1", "8.8.8.8", "10.0.0.1", "9.9.9.9"]), pytest.raises(Unanswered, match="refused"):
        await send("http://mixed.example/", allow_private=False)
    assert tried == ["8.8.8.8", "9.9.9.9"]


async def test_a_dead_address_does_not_hide_a_live_one() -> None:
    async with serving() as server:
        with resolving(["127.0.0.2", "127.0.0.1"]):
            answer = await send(f"http://two.example:{server.port}/")
        assert (answer.status, answer.address) == (200, "127.0.0.1")


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:  # noqa: ANN401
    """The server's side of TLS, for a certificate that is trusted here."""
    identity = make_identity(tmp_path, "receiver")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(identity.certificate, identity.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(identity.certificate))
    webhook_post._trusted.cache_clear()
    yield context
    webhook_post._trusted.cache_clear()


async def test_a_certificate_that_is_trusted_is_accepted_and_another_is_not(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(
        lambda stream: trio.SSLStream(stream, trusted, server_side=True, https_compatible=True)
    ) as server:
        assert (await send(f"https://127.0.0.1:{server.port}/")).status == 200
        complaint = r"certificate of 'other\.example' can't be trusted"
        with resolving(["127.0.0.1"]), pytest.raises(Unanswered, match=complaint) as caught:
            await send(f"https://other.example:{server.port}/")
        assert caught.value.trouble is Trouble.TLS
        monkeypatch.delenv("SSL_CERT_FILE")
        webhook_post._trusted.cache_clear()
        server.got = b""
        with pytest.raises(Unanswered, match="self-signed certificate") as caught:
            await send(f"https://127.0.0.1:{server.port}/")
        assert caught.value.trouble is Trouble.TLS
        assert server.got == b"", "nothing is said to whom nobody vouches for"


async def test_a_server_without_tls_is_told() -> None:
    async with serving() as server:
        server.reads = False
        server.answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        with pytest.raises(Unanswered, match=r"no TLS with '127\.0\.0\.1'") as caught:
            await send(f"https://127.0.0.1:{server.port}/")
        assert caught.value.trouble is Trouble.TLS
