"""What is about people and concerns other nodes: what they do in a room, and questions to all nodes.  Sans-I/O.

* A node subscribes, at every other node, to what people do in the rooms that it has members in. So typing goes only to
  nodes where somebody may see it, and a node that is gone needs no clearing up. It may get lost.
* A question goes to all nodes that are there. It is sent again until it is answered, and done once however often it
  arrives. Whoever is gone is not waited for; what is missing at the deadline is said.

Nothing of who is there is kept of other nodes: it is asked when it is wanted, so that a crashed node leaves no ghosts.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from router.people_wire import MAX_MESSAGE, Ask, PeerMessage, Publication, Told, encode, topic_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from router.ids import RoomId

AGAIN_MS: Final = 400  # a question without an answer is asked again
MAX_ASKED: Final = 1024  # questions of this node without all answers
MAX_REMEMBERED: Final = 4096  # questions of other nodes that are known if they come again
HEADER: Final = 4096  # bytes of a message beside its body, at most: site, life, method
MAX_BODY: Final = MAX_MESSAGE - HEADER

Gathered: TypeAlias = "Callable[[Answers], None]"


class Inquiry(NamedTuple):
    """What is asked of other nodes.

    Attributes:
        site, method, body: As in `people_wire.Ask`.
        patience: Milliseconds.
        suspects: Whether nodes that may be gone are waited for, too: what is to be done must be done there, if they
            are not; who is there is not known of them.
    """

    site: str
    method: str
    body: bytes
    patience: int
    suspects: bool


class Answer(NamedTuple):
    """What a node has answered: 0 and its answer, or the code of an error and its text."""

    code: int
    body: bytes


class Answers(NamedTuple):
    """What came of a question.

    Attributes:
        told: Answers by node.
        missing: Nodes that are there, as far as is known, and did not answer.
    """

    told: dict[str, Answer]
    missing: list[str]


class Question(NamedTuple):
    """Effect: another node asks; `People.answer` is to be called once with it, now or later."""

    node: str
    ask: Ask


@dataclass(slots=True)
class PeopleEffects:
    """What is to be done.

    Attributes:
        sends: Messages to nodes.
        publications: Topics and what is published.
        subscriptions: Nodes, topics, and whether these are wanted there.
        heard: What people did on other nodes.
        questions: Of other nodes.
        answers: Who is to be told what came of its question.
    """

    sends: list[tuple[str, bytes]] = field(default_factory=list)
    publications: list[tuple[bytes, bytes]] = field(default_factory=list)
    subscriptions: list[tuple[str, bytes, bool]] = field(default_factory=list)
    heard: list[Publication] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    answers: list[tuple[Gathered, Answers]] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(
            self.sends or self.publications or self.subscriptions or self.heard or self.questions or self.answers
        )


class _Asked:
    """A question that is under way."""

    __slots__ = ("again", "body", "deadline", "done", "suspects", "told", "waited")

    def __init__(self, body: bytes, waited: Collection[str], done: Gathered, deadline: int, again: int) -> None:
        self.body, self.done, self.deadline, self.again = body, done, deadline, again
        self.waited = dict.fromkeys(waited)
        self.suspects = False
        self.told: dict[str, Answer] = {}


class People:
    """A node's part in it.

    Args:
        life: Of this process: its boot.

    Attributes:
        strays: Messages that can't be what they say.
    """

    def __init__(self, life: str) -> None:
        self._life = life
        self._peers: set[str] = set()
        self._up: set[str] = set()
        self._suspects: set[str] = set()
        self._topics: dict[bytes, int] = {}  # how many rooms have each
        self._asked: dict[int, _Asked] = {}
        self._number = 0
        self._known: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()
        self._effects = PeopleEffects()
        self.strays = 0

    def effects(self) -> PeopleEffects:
        """What is to be done since the last call."""
        effects, self._effects = self._effects, PeopleEffects()
        return effects

    # -- for the gateway -----------------------------------------------------------------------------------------

    def follow(self, room: RoomId) -> None:
        """A room has members here."""
        topic = topic_of(room)
        self._topics[topic] = count = self._topics.get(topic, 0) + 1
        if count == 1:
            self._effects.subscriptions += [(node, topic, True) for node in self._peers]

    def unfollow(self, room: RoomId) -> None:
        """Undo `follow`."""
        topic = topic_of(room)
        self._topics[topic] -= 1
        if not self._topics[topic]:
            del self._topics[topic]
            self._effects.subscriptions += [(node, topic, False) for node in self._peers]

    def publish(self, room: RoomId, publication: Publication) -> None:
        """Tell the nodes that follow a room; dropped if it is too long."""
        body = encode(publication)
        if self._peers and len(body) <= MAX_MESSAGE:
            self._effects.publications.append((topic_of(room), body))

    def ask(self, inquiry: Inquiry, done: Gathered, now: int) -> None:
        """Ask the other nodes; `done` is called once, when the effects are performed, now or later."""
        there, body = self._there(suspects=inquiry.suspects), inquiry.body
        if len(self._asked) >= MAX_ASKED or len(body) > MAX_BODY:
            self._effects.answers.append((done, Answers({}, sorted(there))))
            return
        if not there:
            self._effects.answers.append((done, Answers({}, [])))
            return
        self._number += 1
        message = encode(Ask(self._life, self._number, inquiry.site, inquiry.method, body))
        asked = _Asked(message, there, done, now + inquiry.patience, now + AGAIN_MS)
        asked.suspects = inquiry.suspects
        self._asked[self._number] = asked
        self._effects.sends += [(node, message) for node in asked.waited]

    def answer(self, question: Question, answer: Answer) -> None:
        """Answer another node."""
        ask = question.ask
        if len(answer.body) > MAX_BODY:
            answer = Answer(100, b"the answer is too long")
        body = encode(Told(ask.life, ask.request, answer.code, answer.body))
        key = (question.node, ask.life, ask.request)
        if key in self._known:
            self._known[key] = body
        self._effects.sends.append((question.node, body))

    # -- for the driver ------------------------------------------------------------------------------------------

    def connected(self, node: str) -> None:
        """There is a connection to a node, which may come to have members in the same rooms."""
        if node not in self._peers:
            self._peers.add(node)
            self._effects.subscriptions += [(node, topic, True) for topic in self._topics]

    def disconnected(self, node: str) -> None:
        """There is none any more, and nothing is subscribed there."""
        self._peers.discard(node)

    def receive(self, node: str, message: PeerMessage) -> None:
        """A message of a node."""
        if isinstance(message, Told):
            self._take(node, message)
            return
        key = (node, message.life, message.request)
        before = self._known.get(key)
        if before is None:
            self._known[key] = b""
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
            self._effects.questions.append(Question(node, message))
        elif before:
            self._effects.sends.append((node, before))

    def published(self, topic: bytes, publication: Publication) -> None:
        """A publication of a node."""
        if topic in self._topics:  # else it was on its way when the last member left
            self._effects.heard.append(publication)

    def up(self, node: str) -> None:
        """A node is there."""
        self._suspects.discard(node)
        self._up.add(node)

    def suspect(self, node: str) -> None:
        """A node may be gone, with all people that were there."""
        self._up.discard(node)
        self._suspects.add(node)

    def gone(self, node: str) -> None:
        """A node is down or has left."""
        self._up.discard(node)
        self._suspects.discard(node)

    def tick(self, now: int) -> None:
        """Ask again, and wait no longer for who is gone or did not answer in time."""
        for number, asked in list(self._asked.items()):
            there = self._there(suspects=asked.suspects)
            for node in [node for node in asked.waited if node not in there]:
                del asked.waited[node]
            if not asked.waited or now >= asked.deadline:
                self._finish(number, asked)
            elif now >= asked.again:
                asked.again = now + AGAIN_MS
                self._effects.sends += [(node, asked.body) for node in asked.waited]

    # -- inside --------------------------------------------------------------------------------------------------

    def _there(self, *, suspects: bool) -> set[str]:
        return self._up | self._suspects if suspects else self._up

    def _take(self, node: str, told: Told) -> None:
        asked = self._asked.get(told.request) if told.life == self._life else None
        if asked is None or node not in asked.waited:
            self.strays += 1
            return
        del asked.waited[node]
        asked.told[node] = Answer(told.code, told.body)
        if not asked.waited:
            self._finish(told.request, asked)

    def _finish(self, number: int, asked: _Asked) -> None:
        del self._asked[number]
        self._effects.answers.append((asked.done, Answers(asked.told, sorted(asked.waited))))
