"""Who is in a room on all nodes, and what is done for other nodes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import pytest

from node.neighbours import COUNTS, Neighbours, _Counts, _digest
from router.ids import RoomId
from router.people import Answer, Answers, Inquiry, Question
from router.people_wire import Ask

if TYPE_CHECKING:
    from node.rooms import Room
    from router.people import Gathered

NAME: Final = RoomId("s", "lobby")


class Mesh:
    """Keeps what is asked, and what is answered."""

    def __init__(self) -> None:
        self.people = self
        self.asked: list[tuple[Inquiry, Gathered]] = []
        self.answers: list[Answer] = []

    def ask(self, inquiry: Inquiry, done: Gathered) -> None:
        self.asked.append((inquiry, done))

    def answer(self, _: Question, answer: Answer) -> None:
        self.answers.append(answer)


def room(**connections: str) -> Room:
    """A room with some clients: user by client id."""
    here = {client: b'"%b"' % user.encode() for client, user in connections.items()}
    users = {user: list(connections.values()).count(user) for user in connections.values()}
    shape = SimpleNamespace(id=NAME, here=here, users=users, roster=lambda most: dict(list(here.items())[:most]))
    return cast("Room", shape)


def node(mesh: Mesh, here: Room | None = None) -> Neighbours:
    rooms = {} if here is None else {NAME.channel: here}
    gateway = SimpleNamespace(node="n1", tenant=lambda site: SimpleNamespace(rooms=rooms if site == NAME.site else {}))
    return Neighbours(cast("Any", mesh), cast("Any", gateway), cast("Any", None), 3)


def counts(clients: int, *users: str) -> Answer:
    return Answer(0, msgspec.msgpack.encode(_Counts(clients, len(users), [_digest(user) for user in users])))


def test_a_user_on_two_nodes_is_one() -> None:
    mesh, found = Mesh(), list[Any]()
    node(mesh).presence_stats(room(c1="ann", c2="ann", c3="ben"), found.append)
    crowd = Answer(0, msgspec.msgpack.encode(_Counts(9, 8, [])))
    told = {
        "n2": counts(2, "ann", "cid"),
        "n3": counts(1, "cid"),
        "n4": crowd,
        "n5": Answer(0, b"?"),
        "n6": Answer(1, b""),
    }
    mesh.asked[0][1](Answers(told, []))
    assert found == [(3 + 2 + 1 + 9, 2 + 1 + 8)]


def test_a_roster_is_capped() -> None:
    mesh, found = Mesh(), list[Any]()
    node(mesh).presence(room(c1="ann", c2="ann"), found.append)
    mesh.asked[0][1](Answers({"n2": Answer(0, msgspec.msgpack.encode({"c3": b"3", "c4": b"4"}))}, ["n3"]))
    assert found == [{"c1": b'"ann"', "c2": b'"ann"', "c3": b"3"}]


def test_who_asks_meanwhile_shares_the_next_question() -> None:
    mesh, found = Mesh(), list[Any]()
    neighbours, here = node(mesh), room()
    for _ in range(3):
        neighbours.presence_stats(here, found.append)
    assert len(mesh.asked) == 1
    mesh.asked[0][1](Answers({}, []))
    assert (len(mesh.asked), found) == (2, [(0, 0)])
    mesh.asked[1][1](Answers({"n2": counts(1, "ann")}, []))
    assert (len(mesh.asked), found) == (2, [(0, 0), (1, 1), (1, 1)])


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (Ask("l", 1, "s", COUNTS, b"lobby"), counts(2, "ann")),
        (Ask("l", 1, "other", COUNTS, b"lobby"), counts(0)),
        (Ask("l", 1, "s", "presence", b"none"), Answer(0, msgspec.msgpack.encode({}))),
    ],
)
def test_other_nodes_are_told_who_is_here(ask: Ask, answer: Answer) -> None:
    mesh = Mesh()
    node(mesh, room(c1="ann", c2="ann")).asked(Question("n2", ask))
    assert mesh.answers == [answer]


@pytest.mark.parametrize(
    ("method", "body", "code"), [("stop", b"", 104), ("disconnect", b"[", 107), (COUNTS, b"\xff", 107)]
)
def test_what_is_not_understood_is_refused(method: str, body: bytes, code: int) -> None:
    mesh = Mesh()
    node(mesh).asked(Question("n2", Ask("l", 1, "s", method, body)))
    assert [answer.code for answer in mesh.answers] == [code]
