"""The echo that conformance suites talk to, over real sockets: what it answers, and that it closes first."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from node import echo
from node.websocket import BINARY, CLOSE, FAILED, NO_STATUS, PING, PONG, TEXT, CloseReason
from tests.harness.client_frames import (
    BEYOND_UNICODE,
    CASES,
    CONTINUATION,
    GREEK,
    HELD,
    HELLO,
    MAX_MESSAGE,
    SURROGATE,
    Outcome,
    close_payload,
    frame,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GOODBYE = frame(CLOSE, close_payload(1000))
SECONDS = 30  # never reached

Answers = list[tuple[int, bytes]]


@asynccontextmanager
async def client_of_an_echo(message_bytes: int) -> AsyncIterator[trio.SocketStream]:
    """A client whose upgrade was accepted, of an echo that takes messages of this length."""
    with pytest.MonkeyPatch.context() as patch, trio.fail_after(SECONDS):
        patch.setattr(echo, "MESSAGE_BYTES", message_bytes)
        async with trio.open_nursery() as nursery:
            port = await nursery.start(echo.serve, "127.0.0.1", 0)
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(UPGRADE)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += await stream.receive_some(1)
                assert head.startswith(b"HTTP/1.1 101 ")
                yield stream
            nursery.cancel_scope.cancel()


async def answers_to_the_end(stream: trio.SocketStream) -> Answers:
    """All that the server sends until it closes the connection, which it must do first; of a close frame the code."""
    peer = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
    while data := await stream.receive_some(1 << 20):
        peer.receive_data(data)
    answers: Answers = []
    for event in peer.events_received():
        assert isinstance(event, Frame)
        assert event.fin
        answers.append((event.opcode, bytes(event.data[:2] if event.opcode is Opcode.CLOSE else event.data)))
    assert peer.parser_exc is None
    return answers


def answers_to(outcome: Outcome) -> Answers:
    """What an echo has to answer, a close frame included."""
    answers: Answers = []
    for kind, value in outcome:
        if kind == FAILED and isinstance(value, int):
            answers.append((CLOSE, close_payload(value)))
        elif isinstance(value, CloseReason):
            answers.append((CLOSE, b"" if value.code == NO_STATUS else close_payload(value.code)))
        elif kind != PONG and isinstance(value, bytes):
            answers.append((PONG if kind == PING else kind, value))
    if not answers or answers[-1][0] != CLOSE:
        answers.append((CLOSE, close_payload(1000)))  # the answer to `GOODBYE`
    return answers


@pytest.mark.parametrize("case", CASES)
async def test_a_client_is_answered_as_the_protocol_says_and_closed_first(case: str) -> None:
    wire, outcome = CASES[case]
    async with client_of_an_echo(MAX_MESSAGE) as stream:
        await stream.send_all(wire + GOODBYE)
        assert await answers_to_the_end(stream) == answers_to(outcome)


@pytest.mark.parametrize("case", [case for case, (wire, _) in CASES.items() if len(wire) < 300])
async def test_bytes_that_come_one_at_a_time_are_answered_alike(case: str) -> None:
    wire, outcome = CASES[case]
    async with client_of_an_echo(MAX_MESSAGE) as stream:
        for byte in wire + GOODBYE:
            await stream.send_all(bytes([byte]))
        assert await answers_to_the_end(stream) == answers_to(outcome)


def begun_frame(text: bytes) -> bytes:
    """The start of a text's only frame, which ends with these bytes although the frame goes on."""
    return frame(TEXT, text + b"more")[:-4]


def begun_message(*texts: bytes) -> bytes:
    """A text's first fragments; more are to come."""
    return b"".join(frame(CONTINUATION if n else TEXT, text, final=False) for n, text in enumerate(texts))


HOPELESS = {
    "fragment beyond Unicode": (begun_message(GREEK), begun_message(b"", BEYOND_UNICODE)[6:]),
    "fragment of one impossible byte": (begun_message(GREEK + b"\xf4"), begun_message(b"", b"\x90")[6:]),
    "frame beyond Unicode": (begun_frame(GREEK + BEYOND_UNICODE)[:-4], begun_frame(GREEK + BEYOND_UNICODE)[-4:]),
    "frame with a surrogate": (begun_frame(GREEK + SURROGATE[:2])[:-1], begun_frame(GREEK + SURROGATE[:2])[-1:]),
    "frame with a slash that is too long": (begun_frame(b"\xe0\x80")[:-1], begun_frame(b"\xe0\x80")[-1:]),
    "frame with a byte that never is": (begun_frame(GREEK + b"\xff")[:-1], begun_frame(GREEK + b"\xff")[-1:]),
}


@pytest.mark.parametrize("case", HOPELESS)
async def test_a_text_is_given_up_at_the_first_impossible_byte_without_its_rest(case: str) -> None:
    possible, impossible = HOPELESS[case]
    async with client_of_an_echo(MAX_MESSAGE) as stream:
        await stream.send_all(possible)
        await trio.testing.wait_all_tasks_blocked()  # so that the parts arrive apart
        await stream.send_all(impossible)
        assert await answers_to_the_end(stream) == [(CLOSE, close_payload(1007))]


async def test_a_ping_inside_a_message_is_answered_before_the_message_ends() -> None:
    async with client_of_an_echo(MAX_MESSAGE) as stream:
        await stream.send_all(begun_message(b"one, ", b"two, ") + frame(PING, b"there?"))
        assert await stream.receive_some(100) == b"\x8a\x06there?"
        await stream.send_all(frame(CONTINUATION, b"three") + GOODBYE)
        assert await answers_to_the_end(stream) == [(TEXT, b"one, two, three"), (CLOSE, close_payload(1000))]


async def test_answers_that_the_client_has_not_read_come_before_the_close() -> None:
    long = b"*" * (8 << 20)  # more than the socket's buffers take
    async with client_of_an_echo(len(long)) as stream:
        await stream.send_all(frame(TEXT, long) + HELLO + GOODBYE + frame(PING))
        assert await answers_to_the_end(stream) == [(TEXT, long), HELD, (CLOSE, close_payload(1000))]


async def test_the_longest_message_of_conformance_suites_comes_back() -> None:
    assert echo.MESSAGE_BYTES == 16 << 20
    long = bytes(echo.MESSAGE_BYTES)
    async with client_of_an_echo(echo.MESSAGE_BYTES) as stream:
        await stream.send_all(frame(BINARY, long) + GOODBYE)
        assert await answers_to_the_end(stream) == [(BINARY, long), (CLOSE, close_payload(1000))]


def test_it_says_where_it_listens_and_ends_quietly_when_interrupted() -> None:
    process = subprocess.Popen(
        (sys.executable, "-c", "from node.echo import run; run('127.0.0.1', 0)"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert said.startswith("echo server at ws://127.0.0.1:")
    assert not said.endswith(":0/\n")
    assert (complaints, process.returncode) == ("", 0)
