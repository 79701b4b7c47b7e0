"""Whether what clients were told, and what logs hold, keeps the promises; pure, and linear in the length of it.

Each client writes down what it did and saw, in order. All are of one clock. Nobody asks the nodes what is right: of
all that was seen follows one order, and whatever disagrees with it, or with what was acknowledged, is a fault:

=========== ==========================================================================================================
lost        acknowledged, and its place is empty, or another's, or past the end of what was read at rest
doubled     one id at two places
two bodies  one place with two ids or two bodies, in the eyes of two clients or logs
skipped     a client was given a place without the one before
backwards   a client was given a place again, or after a later one
invented    nobody wrote this id, or not with this body or target
reversed    known before another was written, and still behind it in the order
target      an entry about another that does not come before it
hidden      hidden without a removal; or, at rest, shown in spite of it
behind      in the end a client has not been given what others have
stream      a room that began anew: another stream epoch
chain       the chains of two logs differ where both have an entry
=========== ==========================================================================================================

Prefixes of all clients are equal when nothing is skipped, backwards or of two bodies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

HIDDEN: Final = ""
"""The body of what is served as a placeholder."""

SHOWN: Final = 40  # characters of a body

Chains = dict[int, dict[int, bytes]]
"""Of one log: by shard and lsn, the chain there."""


class Rule(StrEnum):
    """What can be broken; see above."""

    LOST = "lost"
    DOUBLED = "doubled"
    TWO_BODIES = "two bodies"
    SKIPPED = "skipped"
    BACKWARDS = "backwards"
    INVENTED = "invented"
    REVERSED = "reversed"
    TARGET = "target"
    HIDDEN = "hidden"
    BEHIND = "behind"
    STREAM = "stream"
    CHAIN = "chain"


class Fault(NamedTuple):
    """A promise that was not kept.

    Attributes:
        text: Who saw what, where.
    """

    rule: Rule
    text: str


class Submit(NamedTuple):
    """A client sends an entry; again under the same id, as often as it likes.

    Attributes:
        at: When, in seconds of the clock of all histories.
        target: The sequence that a removal removes; 0: it is a message.
    """

    at: float
    room: str
    cmid: str
    body: str
    target: int = 0


class Ack(NamedTuple):
    """It is told that the entry is kept, and where."""

    at: float
    room: str
    cmid: str
    sequence: int


class Begin(NamedTuple):
    """A client begins to read a room.

    Attributes:
        after: The sequence before the first that it must be given.
        epoch: The room's stream epoch; empty: not known.
    """

    at: float
    room: str
    after: int = 0
    epoch: str = ""


class Seen(NamedTuple):
    """A client is given an entry, live or recovered."""

    at: float
    room: str
    sequence: int
    cmid: str
    body: str
    target: int = 0


Event = Submit | Ack | Begin | Seen


@dataclass(slots=True)
class History:
    """What one client did and saw.

    Attributes:
        client: Its name.
        events: In order.
        settled: It was waited for: it must have been given everything.
        at_rest: It was read when all was over, of a node or its log: it is complete, and hides what was removed.
    """

    client: str
    events: list[Event] = field(default_factory=list)
    settled: bool = False
    at_rest: bool = False


class _Place(NamedTuple):
    """What stands at a sequence, and who saw it there first."""

    cmid: str
    body: str
    target: int
    client: str


@dataclass(slots=True)
class _Room:
    """What all clients together know of a room."""

    name: str
    places: dict[int, _Place] = field(default_factory=dict)
    written: dict[str, Submit] = field(default_factory=dict)
    acked: dict[str, int] = field(default_factory=dict)
    known: dict[str, float] = field(default_factory=dict)  # when anybody first knew that it is kept
    hidden: dict[int, str] = field(default_factory=dict)  # who was given a placeholder
    shown: dict[int, str] = field(default_factory=dict)  # and who the text, at rest
    ends: dict[str, int] = field(default_factory=dict)  # up to where each has read
    epochs: dict[str, str] = field(default_factory=dict)

    @property
    def top(self) -> int:
        """The last sequence that anybody knows of."""
        return max(max(self.places, default=0), max(self.acked.values(), default=0))

    def know(self, cmid: str, at: float) -> None:
        self.known[cmid] = min(at, self.known.get(cmid, inf))


def faults(histories: Sequence[History], chains: Mapping[str, Chains] | None = None) -> list[Fault]:
    """All that is wrong; nothing: the promises were kept.

    Args:
        histories: Of all clients. That something is missing in the end is only found where one is settled or at rest.
        chains: By the name of a log.
    """
    rooms: dict[str, _Room] = {}
    found: list[Fault] = []
    for history in histories:
        found += _read(history, rooms)
    resting = {history.client for history in histories if history.at_rest}
    settled = {history.client for history in histories if history.settled} | resting
    for room in rooms.values():
        found += _ends(room, settled, resting)
        found += _acknowledged(room)
        found += _places(room)
        found += _reversed(room)
        found += _hidden(room)
    found += _chains(chains or {})
    return found


def _read(history: History, rooms: dict[str, _Room]) -> Iterator[Fault]:
    """Take down what one client did and saw."""
    client = history.client
    for event in history.events:
        room = rooms.setdefault(event.room, _Room(event.room))
        match event:
            case Submit(cmid=cmid):
                room.written.setdefault(cmid, event)
            case Ack(at, _, cmid, sequence):
                room.know(cmid, at)
                first = room.acked.setdefault(cmid, sequence)
                if first != sequence:
                    yield _fault(Rule.DOUBLED, room, f"{client}: {cmid} is acknowledged at {first} and at {sequence}")
            case Begin(_, _, after, epoch):
                room.ends[client] = after
                if epoch and epoch not in room.epochs:
                    room.epochs[epoch] = client
                    if len(room.epochs) > 1:
                        yield _fault(Rule.STREAM, room, f"it began anew; its epochs: {room.epochs}")
            case Seen():
                yield from _see(history, room, event)


def _see(history: History, room: _Room, seen: Seen) -> Iterator[Fault]:
    client, sequence = history.client, seen.sequence
    before = room.ends.get(client, 0)
    room.ends[client] = max(before, sequence)
    if sequence > before + 1:
        yield _fault(Rule.SKIPPED, room, f"{client} is given {sequence} ({seen.cmid}) after {before}")
    elif sequence <= before:
        yield _fault(Rule.BACKWARDS, room, f"{client} is given {sequence} ({seen.cmid}) when it is at {before}")
    room.know(seen.cmid, seen.at)
    if seen.body == HIDDEN:
        room.hidden.setdefault(sequence, client)
    elif history.at_rest:
        room.shown.setdefault(sequence, client)
    place = room.places.get(sequence)
    if place is None or (place.body == HIDDEN and place.cmid == seen.cmid):
        room.places[sequence] = _Place(seen.cmid, seen.body, seen.target, client)
    elif place.cmid != seen.cmid or (seen.body not in (HIDDEN, place.body) or seen.target != place.target):
        one, other = f"{place.cmid} {place.body[:SHOWN]!r}", f"{seen.cmid} {seen.body[:SHOWN]!r}"
        yield _fault(Rule.TWO_BODIES, room, f"{sequence} is {one} for {place.client} and {other} for {client}")


def _ends(room: _Room, settled: set[str], resting: set[str]) -> Iterator[Fault]:
    """What is missing where nothing may be."""
    top = room.top
    placed = max(room.acked.items(), key=lambda item: item[1], default=("", 0))
    for client, end in room.ends.items():
        if client in resting and placed[1] > end:
            yield _fault(Rule.LOST, room, f"{placed[0]} was acknowledged at {placed[1]}, {client} ends at {end}")
        elif client in settled and end < top:
            yield _fault(Rule.BEHIND, room, f"{client} ends at {end} of {top}")


def _acknowledged(room: _Room) -> Iterator[Fault]:
    for cmid, sequence in room.acked.items():
        place = room.places.get(sequence)
        if place is None and room.ends:
            yield _fault(Rule.LOST, room, f"{cmid} was acknowledged at {sequence}, where nobody has seen anything")
        elif place is not None and place.cmid != cmid:
            text = f"{cmid} was acknowledged at {sequence}, where {place.client} was given {place.cmid}"
            yield _fault(Rule.LOST, room, text)
        if cmid not in room.written:
            yield _fault(Rule.INVENTED, room, f"{cmid} was acknowledged at {sequence}, and nobody wrote it")


def _places(room: _Room) -> Iterator[Fault]:
    """Each id once, as it was written, and after what it is about."""
    first: dict[str, int] = {}
    for sequence, place in room.places.items():
        at = first.setdefault(place.cmid, sequence)
        if at != sequence:
            yield _fault(Rule.DOUBLED, room, f"{place.cmid} is at {at} and at {sequence}")
        written = room.written.get(place.cmid)
        if written is None:
            yield _fault(Rule.INVENTED, room, f"{place.client} was given {place.cmid} at {sequence}; nobody wrote it")
        elif place.body not in (HIDDEN, written.body) or place.target != written.target:
            text = f"{place.client} was given {place.cmid} at {sequence} as {place.body[:SHOWN]!r} about {place.target}"
            yield _fault(Rule.INVENTED, room, text)
        if place.target and not 0 < place.target < sequence:
            yield _fault(Rule.TARGET, room, f"{place.cmid} at {sequence} removes {place.target}")


def _reversed(room: _Room) -> Iterator[Fault]:
    """Going back, the earliest time at which a later entry was known must not lie before this one was written."""
    known, later = inf, ""
    for sequence in range(max(room.places, default=0), 0, -1):
        place = room.places.get(sequence)
        written = room.written.get(place.cmid) if place is not None else None
        if place is None or written is None:
            continue
        if known < written.at:
            text = (
                f"{later} was known at {known:.6f} s, {place.cmid} was written at {written.at:.6f} s and is before it"
            )
            yield _fault(Rule.REVERSED, room, text)
        if (at := room.known.get(place.cmid, inf)) < known:
            known, later = at, place.cmid


def _hidden(room: _Room) -> Iterator[Fault]:
    removed = {place.target for place in room.places.values() if place.target}
    for sequence, client in room.hidden.items():
        if sequence not in removed:
            yield _fault(Rule.HIDDEN, room, f"{client} is not shown {sequence}, which nobody removed")
    for sequence, client in room.shown.items():
        if sequence in removed:
            yield _fault(Rule.HIDDEN, room, f"{client} is shown {sequence}, which was removed")


def _chains(logs: Mapping[str, Chains]) -> Iterator[Fault]:
    """The first entry of each shard in which a log differs from one before it."""
    agreed: dict[int, dict[int, tuple[bytes, str]]] = {}
    for name, shards in logs.items():
        for shard, chain_of in shards.items():
            known = agreed.setdefault(shard, {})
            differing = [lsn for lsn, chain in chain_of.items() if lsn in known and known[lsn][0] != chain]
            if differing:
                lsn = min(differing)
                yield Fault(Rule.CHAIN, f"shard {shard}: {name} and {known[lsn][1]} differ from lsn {lsn} on")
            for lsn, chain in chain_of.items():
                known.setdefault(lsn, (chain, name))


def _fault(rule: Rule, room: _Room, text: str) -> Fault:
    return Fault(rule, f"room {room.name}: {text}")


def summary(found: Iterable[Fault], most: int = 10) -> list[str]:
    """A line for each fault, and at most so many of one rule."""
    by_rule: dict[Rule, list[str]] = {}
    for fault in found:
        by_rule.setdefault(fault.rule, []).append(fault.text)
    lines: list[str] = []
    for rule, texts in by_rule.items():
        lines += [f"{rule}: {text}" for text in texts[:most]]
        if len(texts) > most:
            lines.append(f"{rule}: and {len(texts) - most} more")
    return lines
