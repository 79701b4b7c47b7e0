"""Questions to all nodes and what is told of people, over a network that loses, repeats and delays."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from router.errors import CorruptEntry
from router.ids import RoomId
from router.people import MAX_ASKED, MAX_BODY, Answer, Answers, Inquiry, People
from router.people_wire import (
    MAX_MESSAGE,
    Ask,
    Told,
    Whisper,
    decode,
    decode_publication,
    encode,
    is_peoples,
    topic_of,
)

if TYPE_CHECKING:
    from router.people import PeopleEffects, Question

ROOM: Final = RoomId("s", "lobby")
OTHER: Final = RoomId("s", "other")
ACT: Final = Inquiry("s", "disconnect", b"{}", 2000, suspects=True)
LOOK: Final = Inquiry("s", "presence", b"lobby", 1000, suspects=False)


def sole(*up: str) -> People:
    people = People("life")
    for node in up:
        people.connected(node)
        people.up(node)
    people.effects()
    return people


def told(effects: PeopleEffects) -> list[Answers]:
    return [answers for _, answers in effects.answers]


def reply(request: int, life: str = "life") -> Told:
    return Told(life, request, 0, b"done")


def test_all_that_are_up_are_asked_and_waited_for() -> None:
    people = sole("n2", "n3")
    people.ask(ACT, lambda _: None, 0)
    sends = people.effects().sends
    assert sorted(node for node, _ in sends) == ["n2", "n3"]
    assert {decode(body) for _, body in sends} == {Ask("life", 1, "s", "disconnect", b"{}")}
    people.receive("n2", reply(1))
    assert not people.effects()
    people.receive("n3", Told("life", 1, 107, b"bad"))
    (answers,) = told(people.effects())
    assert answers == ({"n2": Answer(0, b"done"), "n3": Answer(107, b"bad")}, [])


def test_alone_there_is_nobody_to_wait_for() -> None:
    people = sole()
    people.ask(ACT, lambda _: None, 0)
    assert told(people.effects()) == [Answers({}, [])]


def test_it_is_asked_again_until_the_deadline_and_then_said_who_is_missing() -> None:
    people = sole("n2", "n3")
    people.ask(ACT, lambda _: None, 0)
    people.receive("n2", reply(1))
    first = people.effects().sends
    people.tick(399)
    assert not people.effects()
    people.tick(400)
    assert people.effects().sends == [send for send in first if send[0] == "n3"]
    people.tick(2000)
    assert told(people.effects()) == [Answers({"n2": Answer(0, b"done")}, ["n3"])]
    people.receive("n3", reply(1))
    assert people.strays == 1


@pytest.mark.parametrize(("inquiry", "waits"), [(ACT, True), (LOOK, False)])
def test_suspects_are_waited_for_if_something_is_to_be_done(inquiry: Inquiry, *, waits: bool) -> None:
    people = sole("n2")
    people.ask(inquiry, lambda _: None, 0)
    people.suspect("n2")
    people.tick(10)
    assert bool(told(people.effects())) is not waits
    people.gone("n2")
    people.tick(20)
    assert bool(told(people.effects())) is waits


def test_answers_to_former_lives_and_of_strangers_are_none() -> None:
    people = sole("n2")
    people.ask(ACT, lambda _: None, 0)
    people.effects()
    people.receive("n2", reply(1, "former"))
    people.receive("n3", reply(1))
    people.receive("n2", reply(2))
    assert (people.strays, bool(people.effects())) == (3, False)


def test_what_comes_twice_is_done_once_and_answered_twice() -> None:
    people = sole("n2")
    ask = Ask("theirs", 7, "s", "subscribe", b"{}")
    people.receive("n2", ask)
    (question,) = people.effects().questions
    people.receive("n2", ask)
    assert not people.effects()
    people.answer(question, Answer(0, b"yes"))
    people.receive("n2", ask)
    effects = people.effects()
    assert not effects.questions
    assert [decode(body) for _, body in effects.sends] == [Told("theirs", 7, 0, b"yes")] * 2


def test_too_many_and_too_long_are_refused() -> None:
    people = sole("n2")
    for _ in range(MAX_ASKED):
        people.ask(ACT, lambda _: None, 0)
    people.effects()
    people.ask(ACT, lambda _: None, 0)
    assert told(people.effects()) == [Answers({}, ["n2"])]
    other = sole("n2")
    other.ask(ACT._replace(body=bytes(MAX_BODY + 1)), lambda _: None, 0)
    assert told(other.effects()) == [Answers({}, ["n2"])]
    other.receive("n2", Ask("theirs", 1, "s", "presence", b""))
    other.answer(other.effects().questions[0], Answer(0, bytes(MAX_BODY + 1)))
    ((_, body),) = other.effects().sends
    assert decode(body) == Told("theirs", 1, 100, b"the answer is too long")


def test_rooms_with_members_are_followed_at_all_nodes() -> None:
    people = sole("n2")
    people.follow(ROOM)
    topic = topic_of(ROOM)
    assert is_peoples(topic)
    assert people.effects().subscriptions == [("n2", topic, True)]
    people.connected("n3")
    people.connected("n3")
    assert people.effects().subscriptions == [("n3", topic, True)]
    whisper = Whisper("s", "lobby", b"{}")
    people.published(topic, whisper)
    people.published(topic_of(OTHER), whisper)
    assert people.effects().heard == [whisper]
    people.publish(ROOM, whisper)
    ((to, body),) = people.effects().publications
    assert (to, decode_publication(body)) == (topic, whisper)
    people.publish(ROOM, Whisper("s", "lobby", bytes(MAX_MESSAGE)))
    assert not people.effects()
    people.disconnected("n2")
    people.unfollow(ROOM)
    assert people.effects().subscriptions == [("n3", topic, False)]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xc0", encode(["ask"]), encode(["ask", "life", -1, "s", "m", b""]), bytes(MAX_MESSAGE + 1),
        encode(["told", "life", 1, 5000, b""]), encode(["whisper", "s", "c", b""]),
        encode(["ask", "life", 1, "s", "m", b"", 1]),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(CorruptEntry):
        decode(body)


@pytest.mark.parametrize("body", [b"", encode(["came", "s", "c"]), encode(["read", "s", "c", {"u": -1}])])
def test_what_is_no_publication_is_refused(body: bytes) -> None:
    with pytest.raises(CorruptEntry):
        decode_publication(body)


class World:
    """Nodes whose messages get lost, come twice, late, and to the next life of who they were sent to."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0
        self.lives = Counter[str]()
        self.nodes = {name: self._new(name) for name in ("n1", "n2", "n3", "n4")}
        self.flying: list[tuple[int, str, str, bytes]] = []
        self.waiting: list[tuple[int, str, str, Question]] = []  # questions whose answer takes time
        self.done: Counter[tuple[str, str, int]] = Counter()  # by node and its life, and question
        self.outcomes: Counter[int] = Counter()
        self.asked: dict[int, str] = {}

    def _new(self, name: str) -> People:
        self.lives[name] += 1
        people = People(f"{name}.{self.lives[name]}")
        for other in ("n1", "n2", "n3", "n4"):
            if other != name:
                people.connected(other)
                people.up(other)
        return people

    def restart(self, name: str) -> None:
        self.nodes[name] = self._new(name)
        self.asked = {number: who for number, who in self.asked.items() if who != name}
        self.waiting = [item for item in self.waiting if item[1] != name]

    def ask(self, name: str) -> None:
        number = len(self.outcomes) + len(self.asked) + 1_000_000 * self.now
        self.asked[number] = name

        def tell(_: Answers) -> None:
            assert self.asked.pop(number) == name
            self.outcomes[number] += 1

        self.nodes[name].ask(ACT, tell, self.now)

    def step(self) -> None:
        self.now += 50
        for name, people in self.nodes.items():
            people.tick(self.now)
            effects = people.effects()
            for done, answers in effects.answers:
                done(answers)
            for question in effects.questions:
                ask = question.ask
                self.done[f"{name}.{self.lives[name]}", ask.life, ask.request] += 1
                self.waiting.append((self.now + self.random.randrange(500), name, self._life(name), question))
            for to, body in effects.sends:
                for _ in range(self.random.choice((0, 1, 1, 1, 2))):
                    self.flying.append((self.now + self.random.randrange(600), name, to, body))
        for item in [item for item in self.waiting if item[0] <= self.now]:
            self.waiting.remove(item)
            _, name, life, question = item
            if life == self._life(name):
                self.nodes[name].answer(question, Answer(0, life.encode()))
        for flight in [flight for flight in self.flying if flight[0] <= self.now]:
            self.flying.remove(flight)
            _, source, to, body = flight
            self.nodes[to].receive(source, decode(body))

    def _life(self, name: str) -> str:
        return f"{name}.{self.lives[name]}"


@pytest.mark.parametrize("seed", range(20))
def test_every_question_has_one_outcome_in_time_and_is_done_once_by_each_life(seed: int) -> None:
    world = World(seed)
    for _ in range(120):
        if world.random.random() < 0.4:
            world.ask(world.random.choice(list(world.nodes)))
        if world.random.random() < 0.02:
            world.restart(world.random.choice(list(world.nodes)))
        world.step()
    for _ in range(2 + ACT.patience // 50):
        world.step()
    assert not world.asked
    assert world.outcomes
    assert set(world.outcomes.values()) == {1}
    assert set(world.done.values()) == {1}
