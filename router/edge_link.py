"""The way from an edge to the primary of a room, be it another node or this one.  Sans-I/O."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from router.edge_wire import Restart, SubmitRemote, encode
from router.entry import Entry
from router.events import Submit
from router.serving_order import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.edge_wire import Answer, Fetch, Mark, Open
    from router.events import Outcome
    from router.ids import RoomId
    from router.serving import Serving


class Resolved(NamedTuple):
    """A submit has an outcome; of an entry, `generation` is the room's."""

    request: int
    session: int
    generation: int
    outcome: Outcome


class Numbered(NamedTuple):
    """A submit on its way; see `edge_wire.SubmitRemote`."""

    request: int
    mapping: int
    session: int
    number: int
    cmid: str
    submit: Submit


LocalAnswer: TypeAlias = "Answer | Resolved"


class Primary(Protocol):
    """A node that is asked as a room's primary. Whether it answers is not known; answers come to the edge later."""

    def ask(self, message: Open | Fetch | Mark) -> None:
        """Ask it something."""

    def submit(self, numbered: Numbered) -> None:
        """Have it make an entry, or find it if it is a probe."""


class RemotePrimary:
    """Another node.

    Args:
        send: Sends it a message, in order with others, or not at all.
    """

    __slots__ = ("_send",)

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def ask(self, message: Open | Fetch | Mark) -> None:
        """See `Primary`."""
        self._send(encode(message))

    def submit(self, numbered: Numbered) -> None:
        """See `Primary`."""
        submit = numbered.submit
        message = SubmitRemote(
            numbered.request, submit.room.site, submit.room.channel, numbered.mapping, numbered.session,
            numbered.number, submit.kind, submit.sender, numbered.cmid, submit.data, submit.info, submit.probe,
        )  # fmt: skip
        self._send(encode(message))


class LocalPrimary:
    """This node.

    Attributes:
        answers: What it has said, in order.
    """

    __slots__ = ("_serving", "answers")

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self.answers: deque[LocalAnswer] = deque()

    def ask(self, message: Open | Fetch | Mark) -> None:
        """See `Primary`."""
        self._serving.ask(message, self.answers.append, follow=False)

    def submit(self, numbered: Numbered) -> None:
        """See `Primary`."""
        serving, submit, request = self._serving, numbered.submit, numbered.request
        room: RoomId = submit.room
        refusal = serving.refusal(request, room, numbered.mapping)
        if refusal is not None:
            self.answers.append(refusal)
            return
        turn = serving.turn(("", ""), room, numbered.session, numbered.number)
        if turn is Turn.MISSING:
            self.answers.append(Restart(room.site, room.channel, numbered.session))
        elif turn is Turn.TAKEN:
            done = partial(self._resolve, request, numbered.session)
            serving.take(
                Submit(room, submit.kind, submit.sender, numbered.cmid, submit.data, submit.info, done, submit.probe)
            )

    def _resolve(self, request: int, session: int, outcome: Outcome) -> None:
        generation = self._serving.generation(outcome.room) if isinstance(outcome, Entry) else 0
        self.answers.append(Resolved(request, session, generation, outcome))
