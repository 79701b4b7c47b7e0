"""Methods of the server API that act on connections, wherever these are: done here, and asked of all other nodes.

Answered when every node that is up has done it. If one does not say so in time, the answer is an error that names it:
the request may be sent again, as all of them may be done twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from node import api_calls as calls
from node.api_methods import Done, Methods
from node.codes import CommandError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from msgspec import Struct

    from router.people import Answers


class Everywhere(NamedTuple):
    """A method.

    Attributes:
        request: What it is given.
        perform: Does it on this node.
    """

    request: type[Struct]
    perform: Callable[[Methods, str, Any, Done], None]


EVERYWHERE: Final[Mapping[str, Everywhere]] = {
    "subscribe": Everywhere(calls.SubscribeRequest, Methods.subscribe),
    "unsubscribe": Everywhere(calls.UnsubscribeRequest, Methods.unsubscribe),
    "disconnect": Everywhere(calls.DisconnectRequest, Methods.disconnect),
    "refresh": Everywhere(calls.RefreshRequest, Methods.refresh),
}


def everywhere(name: str) -> Callable[[Methods, str, Any, Done], None]:
    """A method of `EVERYWHERE`, as the API has it.

    Raises:
        CommandError: (when called) the request is bad; then no other node is asked.
    """
    here = EVERYWHERE[name].perform

    def perform(methods: Methods, site: str, request: Struct, done: Done) -> None:
        neighbours = methods.gateway.neighbours
        if neighbours is None:
            here(methods, site, request, done)
            return
        both = _Both(done)
        here(methods, site, request, both.take_own)
        neighbours.act(site, name, request, both.take_others)

    return perform


class _Both:
    """Waits for this node and for the others; then tells the first error, if there is one."""

    __slots__ = ("_done", "_others", "_own")

    def __init__(self, done: Done) -> None:
        self._done = done
        self._own: bytes | CommandError | None = None
        self._others: Answers | None = None

    def take_own(self, answer: bytes | CommandError) -> None:
        """What came of it here."""
        self._own = answer
        self._settle()

    def take_others(self, answers: Answers) -> None:
        """What came of it elsewhere."""
        self._others = answers
        self._settle()

    def _settle(self) -> None:
        own, others = self._own, self._others
        if own is not None and others is not None:
            self._done(own if isinstance(own, CommandError) else _fault(others) or own)


def _fault(answers: Answers) -> CommandError | None:
    for node, (code, body) in sorted(answers.told.items()):
        if code:
            known = next((one for one in ErrorCode if one == code), ErrorCode.INTERNAL)
            return CommandError(known, f"{node}: {body.decode(errors='replace')[:500]}")
    if answers.missing:
        who = ", ".join(answers.missing)
        return CommandError(ErrorCode.INTERNAL, f"done, but {who} did not say so in time; try again")
    return None
