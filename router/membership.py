"""Which nodes are up, suspect, down or gone.  Sans-I/O.

    UNSEEN ──heartbeat──▶ UP ──silence──▶ SUSPECT ──silence──▶ DOWN        a heartbeat leads back from each to UP,
                          └──────────── farewell ────────────▶ LEFT        from LEFT only one of another life

Every node sends every other one heartbeats, and judges them by its own ears only: what a third one says of somebody is
no sign of life. Gossip tells where nodes are. Nothing here decides what is safe: a node that is wrongly suspected, or
wrongly believed in, costs time and no message (rule 10 of the design).

Silence counts only while this node listens: time that it slept through is nobody's silence, and while it is slow itself
(its loop, its disk) it waits longer.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edge_config.address import is_wildcard, read_address
from router.ids import MemberId
from router.membership_events import (
    Change,
    Changed,
    Connect,
    Disconnect,
    Heard,
    MembershipEffect,
    MembershipStatistics,
    PeerView,
    Send,
    State,
)
from router.membership_wire import (
    MOST_NEWS,
    MOST_RECORDS,
    Beat,
    Echo,
    Identity,
    Leave,
    Load,
    News,
    Record,
    Standing,
)
from router.placement import Candidate
from router.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edge_config.cluster import Cluster
    from router.membership_wire import MembershipMessage

SCHEME: Final = "tcp://"
AWAY_EVERY: Final = 4  # rounds: those who are not heard get a heartbeat once in so many; one of the two must speak
SLOWEST: Final = 7  # a node that is slow itself waits so many times longer at most; then it is useless anyhow
FORMER_LIVES: Final = 16  # of a peer that are remembered, so that what they said late does not count
SENT: Final = 64  # of our heartbeats whose time is remembered: 16 s of them
RECORDS: Final = 4  # peers that a heartbeat tells of by turns
NEWS: Final = 16  # rows that a heartbeat tells by turns: 384 in 6 s
SMOOTHING: Final = 1 / 8  # of a new round trip in the mean, as TCP has it (RFC 6298)


@dataclass(slots=True, frozen=True)
class MembershipOptions:
    """Times in milliseconds; none affects safety.

    Attributes:
        heartbeat: From one round of heartbeats to the next.
        suspect: Silence after which a node is suspect.
        down: Silence after which it is down.
        forget: Time after which one that is gone, and no seed, is forgotten.
        nodes: That are known at most, with this one.
    """

    heartbeat: int = 250
    suspect: int = 1500
    down: int = 10_000
    forget: int = 86_400_000
    nodes: int = 256

    @classmethod
    def of(cls, cluster: Cluster) -> MembershipOptions:
        """As they are configured."""
        forget = int(cluster.forget_hours * 3_600_000)
        return cls(cluster.heartbeat_ms, cluster.suspect_ms, cluster.down_ms, forget, cluster.nodes)


@dataclass(slots=True, frozen=True)
class Pulse:
    """How this node is, for its next heartbeat.

    Attributes:
        load: What others are told.
        standing: What it takes.
    """

    load: Load = field(default_factory=Load)
    standing: Standing = Standing.READY


def is_inbox(address: str) -> bool:
    """Whether one can connect to an address, ``tcp://host:port``."""
    where = read_address(address.removeprefix(SCHEME))
    return address.startswith(SCHEME) and where is not None and where.port > 0 and not is_wildcard(where.host)


class _Peer:
    """What is known of a node."""

    __slots__ = (
        "address", "arrived", "echoed", "echoed_at", "former", "heard", "identity", "key", "load", "n", "node",
        "restarts", "rtt", "seed", "since", "standing", "state", "untold",
    )  # fmt: skip

    def __init__(self, node: str, address: str, key: bytes, now: int, *, seed: bool) -> None:
        self.node, self.address, self.key, self.seed = node, address, key, seed
        self.state, self.since = State.UNSEEN, now
        self.identity: Identity | None = None
        self.standing, self.load = Standing.STARTING, Load()
        self.heard = now  # the beginning of its silence: time that this node slept through is taken off
        self.former: deque[str] = deque(maxlen=FORMER_LIVES)
        self.restarts = 0
        self.untold: list[Record] = []  # what it is still to be told as a newcomer
        self.renew()

    def renew(self) -> None:
        """Forget what was of a life that is over."""
        self.n = 0  # the number of its newest heartbeat
        self.arrived = 0  # when that came
        self.echoed = 0  # our newest heartbeat that it has heard
        self.echoed_at: int | None = None  # when we sent that
        self.rtt: float | None = None

    @property
    def is_heard(self) -> bool:
        """Whether it gives signs of life."""
        return self.state is State.UP or self.state is State.SUSPECT

    @property
    def member(self) -> MemberId | None:
        """Itself as a member of shards; None: it has no log."""
        return MemberId(self.node, self.identity.disk) if self.identity and self.identity.disk else None


class Membership:
    """The nodes of the cluster as one node sees them.

    Args:
        me: This node.
        seeds: Names and addresses of the configured nodes; this one may be among them.
        options: Times and numbers.
        key_of: The public key of a node that may join (empty without encryption); None: it may not.
        now: Milliseconds.
    """

    __slots__ = (
        "_counts", "_key_of", "_leaving", "_n", "_news", "_next", "_options", "_out", "_peers", "_pulse", "_roster",
        "_seeds", "_sent", "_slowness", "_ticked", "_up", "me",
    )  # fmt: skip

    def __init__(
        self, me: Identity, seeds: Iterable[tuple[str, str]], options: MembershipOptions,
        key_of: Callable[[str], bytes | None], now: int,
    ) -> None:  # fmt: skip
        self.me = me
        self._options, self._key_of = options, key_of
        self._peers: dict[str, _Peer] = {}
        self._roster: Rounds[str, Record] = Rounds(MOST_RECORDS, RECORDS)  # of those who are heard
        self._news: Rounds[int, News] = Rounds(MOST_NEWS, NEWS)
        self._seeds = dict(seeds)
        self._sent: dict[int, int] = {}  # when our newest heartbeats were sent
        self._counts: Counter[str] = Counter()
        self._out: list[MembershipEffect] = []
        self._n = 0
        self._pulse = Pulse(standing=Standing.STARTING)
        self._leaving = False
        self._slowness = 0.0
        self._ticked = self._next = now
        self._up: tuple[MemberId, ...] = ()
        for node, address in self._seeds.items():
            self._admit(node, address, now)
        self._count_up()

    # -- what comes in -------------------------------------------------------------------------------------------

    def receive(self, source: str, message: MembershipMessage, now: int) -> list[MembershipEffect]:
        """A message of a node; `source` is whose connection it came by."""
        if source == self.me.node or (isinstance(message, Beat) and not self._is_of(source, message.who)):
            self._counts["misnamed"] += 1
        elif isinstance(message, Beat):
            self._on_beat(source, message, now)
        else:
            self._on_leave(source, message, now)
        return self._taken()

    def _is_of(self, source: str, who: Identity) -> bool:
        """Whether this may be said of the node whose connection it came by."""
        peer = self._peers.get(source)
        is_known = peer is not None and peer.identity is not None and peer.identity.address == who.address
        return who.node == source and (is_known or is_inbox(who.address))

    def sign_of_life(self, source: str, boot: str, now: int) -> None:
        """A message of another kind has come from a life of a node: it is not silent."""
        peer = self._peers.get(source)
        if peer is not None and peer.state is State.UP and peer.identity is not None and peer.identity.boot == boot:
            peer.heard = now

    def tell(self, news: Iterable[News]) -> None:
        """Where shards stand, for the heartbeats: what changed soon, the rest by turns."""
        for item in news:
            self._news.put(item.shard, item)

    def tell_no_more(self, shard: int) -> None:
        """This node has no part in a shard any longer."""
        self._news.drop(shard)

    def tick(self, now: int, pulse: Pulse) -> list[MembershipEffect]:
        """Time passes; to be called at least once in a heartbeat's period."""
        self._pulse = pulse
        self._slowness = min(SLOWEST, 3 * (pulse.load.lag_ms + pulse.load.sync_ms) / self._options.suspect)
        self._excuse(now)
        for peer in [*self._peers.values()]:
            self._judge(peer, now)
        if now >= self._next:
            self._next = max(self._next + self._options.heartbeat, now + self._options.heartbeat // 2)
            self._beat(now)
        return self._taken()

    def allow(self, now: int) -> list[MembershipEffect]:
        """Who may join has changed: forget who may no longer, and connect by the keys that hold now."""
        for peer in [*self._peers.values()]:
            key = self._key_of(peer.node)
            if key is None:
                self._forget(peer)
            elif key != peer.key:
                peer.key = key
                self._connect(peer)
        for node, address in self._seeds.items():
            if node not in self._peers:
                self._admit(node, address, now)
        return self._taken()

    def leave(self, now: int) -> list[MembershipEffect]:
        """This node goes: tell all, now and instead of each further heartbeat."""
        self._leaving = True
        self._beat(now)
        return self._taken()

    # -- what is so ----------------------------------------------------------------------------------------------

    @property
    def up(self) -> tuple[MemberId, ...]:
        """Who may be counted on: this node, and those that are up and have a log. Who is not in it is suspected."""
        return self._up

    @property
    def next_deadline(self) -> int:
        """When `tick` has to be called."""
        return self._next

    def candidates(self, now: int) -> list[Candidate]:
        """Who may be given shards: ready, with a log, heard by this node and hearing it."""
        found = [Candidate.of(self.me)] if self.me.disk and self._pulse.standing is Standing.READY else []
        for peer in self._peers.values():
            is_fit = peer.state is State.UP and peer.standing is Standing.READY and self._hears(peer, now)
            if is_fit and peer.identity is not None and peer.identity.disk:
                found.append(Candidate.of(peer.identity))
        return found

    def is_alone(self) -> bool:
        """Whether none of the nodes that there should be is heard. Whether the register is, the caller knows."""
        return bool(self._peers) and not any(peer.state is State.UP for peer in self._peers.values())

    def feature(self) -> int:
        """Level that all nodes understand which are up or may come back."""
        others = [peer.identity.feature for peer in self._peers.values() if peer.is_heard and peer.identity]
        return min([self.me.feature, *others])

    def peers(self, now: int) -> list[PeerView]:
        """The nodes but this one, by name."""
        return [
            PeerView(
                peer.node, peer.state, peer.since, now - peer.heard if peer.identity else None, peer.rtt,
                self._hears(peer, now), peer.seed, peer.restarts, peer.identity, peer.standing, peer.load,
            )
            for _, peer in sorted(self._peers.items())
        ]  # fmt: skip

    def statistics(self) -> MembershipStatistics:
        """Counts of now, and since the start."""
        states = Counter(peer.state for peer in self._peers.values())
        counts = self._counts
        return MembershipStatistics(
            states[State.UNSEEN], states[State.UP], states[State.SUSPECT], states[State.DOWN], states[State.LEFT],
            counts["sent"], counts["heard"], counts["stale"], counts["misnamed"], counts["strangers"],
            counts["crowded"], counts["suspicions"], counts["mistaken"], counts["overslept"],
        )  # fmt: skip

    # -- peers ---------------------------------------------------------------------------------------------------

    def _on_beat(self, source: str, beat: Beat, now: int) -> None:
        peer = self._peers.get(source) or self._admit(source, beat.who.address, now, heard=True)
        if peer is None:
            return
        before, who = peer.identity, beat.who
        is_same_life = before is not None and before.boot == who.boot
        if who.boot in peer.former or (is_same_life and (beat.n <= peer.n or peer.state is State.LEFT)):
            self._counts["stale"] += 1
            return
        self._counts["heard"] += 1
        if before is not None and not is_same_life:
            peer.former.append(before.boot)
            peer.restarts += 1
            peer.renew()
        peer.identity, peer.n, peer.arrived, peer.heard = who, beat.n, now, now
        peer.standing, peer.load = beat.standing, beat.load
        self._identify(peer, before, now, is_same_life=is_same_life)
        self._on_echo(peer, beat.echo, now)
        for record in beat.peers:
            self._learn(record, now)
        if beat.news:
            self._out.append(Heard(source, beat.news))

    def _identify(self, peer: _Peer, before: Identity | None, now: int, *, is_same_life: bool) -> None:
        """A peer was heard: say what is new about it."""
        who = peer.identity
        if who is None or (peer.state is State.UP and before == who):
            return
        if not peer.seed and peer.address != who.address:
            peer.address = who.address
            self._connect(peer)
        self._counts["mistaken"] += peer.state is State.SUSPECT and is_same_life
        was_up = peer.state is State.UP
        if not is_same_life:
            peer.untold = self._roster.values()
        if not was_up or not is_same_life:
            peer.state, peer.since = State.UP, now
        self._roster.put(peer.node, Record(peer.node, who.address))
        if before is not None and not is_same_life:
            self._changed(peer, Change.RESTARTED, before)
        if before is not None and before.disk != who.disk:
            self._changed(peer, Change.NEW_DISK, before)
        if not was_up:
            self._changed(peer, Change.UP, before)
        self._count_up()

    def _on_echo(self, peer: _Peer, echo: Echo | None, now: int) -> None:
        if echo is None or echo.boot != self.me.boot or echo.n <= peer.echoed:
            return
        sent = self._sent.get(echo.n)
        if sent is not None:
            peer.echoed, peer.echoed_at = echo.n, sent
            rtt = max(0, now - sent - echo.held)
            peer.rtt = rtt if peer.rtt is None else peer.rtt + SMOOTHING * (rtt - peer.rtt)

    def _on_leave(self, source: str, leave: Leave, now: int) -> None:
        peer = self._peers.get(source)
        if peer is None or peer.identity is None or peer.identity.boot != leave.boot:
            self._counts["stale"] += 1
        elif peer.state is not State.LEFT:
            self._set(peer, State.LEFT, Change.LEFT, now)

    def _learn(self, record: Record, now: int) -> None:
        """Somebody hears a node there."""
        peer = self._peers.get(record.node)
        if record.node == self.me.node or (peer is not None and peer.is_heard) or not is_inbox(record.address):
            return
        if peer is None:
            self._admit(record.node, record.address, now)
        elif not peer.seed and peer.address != record.address:
            peer.address = record.address
            self._connect(peer)

    def _admit(self, node: str, address: str, now: int, *, heard: bool = False) -> _Peer | None:
        """Keep account of a node from now on, if it may join, and there is room."""
        if node == self.me.node:
            return None
        key = self._key_of(node)
        if key is None:
            self._counts["strangers"] += 1
            return None
        seed = node in self._seeds
        if not seed and len(self._peers) + 1 >= self._options.nodes and not (heard and self._make_room()):
            self._counts["crowded"] += 1
            return None
        peer = self._peers[node] = _Peer(node, self._seeds.get(node, address), key, now, seed=seed)
        self._connect(peer)
        if not seed:
            self._changed(peer, Change.LEARNED, None)
        return peer

    def _connect(self, peer: _Peer) -> None:
        self._out.append(Connect(peer.node, peer.address, peer.key))

    def _make_room(self) -> bool:
        """For a node that lives, forget the one that is gone for longest."""
        gone = [peer for peer in self._peers.values() if not peer.seed and not peer.is_heard]
        if gone:
            self._forget(min(gone, key=lambda peer: peer.since))
        return bool(gone)

    def _forget(self, peer: _Peer) -> None:
        del self._peers[peer.node]
        self._roster.drop(peer.node)
        self._count_up()
        self._out.append(Disconnect(peer.node))
        self._changed(peer, Change.FORGOTTEN, peer.identity)

    # -- time ----------------------------------------------------------------------------------------------------

    def _excuse(self, now: int) -> None:
        """Time in which this node did not listen is nobody's silence.

        After a sleep so long that connections may have broken, everybody gets a whole period anew.
        """
        gap = now - self._ticked
        self._ticked = now
        missed = gap - self._options.heartbeat
        if missed <= 0:
            return
        overslept = gap >= self._options.suspect
        self._counts["overslept"] += overslept
        for peer in self._peers.values():
            peer.heard = now if overslept and peer.state is State.UP else min(now, peer.heard + missed)
            if peer.echoed_at is not None:
                peer.echoed_at = min(now, peer.echoed_at + missed)

    def _patience(self, silence: int) -> float:
        return silence * (1 + self._slowness)

    def _judge(self, peer: _Peer, now: int) -> None:
        silence = now - peer.heard
        if peer.state is State.UP and silence >= self._patience(self._options.suspect):
            self._counts["suspicions"] += 1
            self._set(peer, State.SUSPECT, Change.SUSPECT, now)
        if peer.state is State.SUSPECT and silence >= self._patience(self._options.down):
            self._set(peer, State.DOWN, Change.DOWN, now)
        if not peer.seed and not peer.is_heard and now - peer.since >= self._options.forget:
            self._forget(peer)

    def _hears(self, peer: _Peer, now: int) -> bool:
        if peer.echoed_at is None or not peer.is_heard:
            return False
        return now - peer.echoed_at < self._patience(self._options.suspect)

    def _beat(self, now: int) -> None:
        """A round: to all who are heard, and now and then to the others."""
        self._n += 1
        self._sent[self._n] = now
        self._sent.pop(self._n - SENT, None)
        turn_of_all = self._n % AWAY_EVERY == 1 or self._leaving
        receivers = [peer for peer in self._peers.values() if peer.is_heard or turn_of_all]
        self._counts["sent"] += len(receivers)
        if self._leaving:
            self._out += [Send(peer.node, Leave(self.me.boot)) for peer in receivers]
            return
        news, records = self._news.next(), self._roster.next()
        for peer in receivers:
            told = records
            if peer.untold and peer.is_heard:
                told, peer.untold = peer.untold[:MOST_RECORDS], peer.untold[MOST_RECORDS:]
            echo = Echo(peer.identity.boot, peer.n, now - peer.arrived) if peer.n and peer.identity else None
            beat = Beat(self._n, self.me, self._pulse.standing, self._pulse.load, echo, news, told)
            self._out.append(Send(peer.node, beat))

    def _set(self, peer: _Peer, state: State, change: Change, now: int) -> None:
        peer.state, peer.since = state, now
        if not peer.is_heard:
            self._roster.drop(peer.node)
        self._count_up()
        self._changed(peer, change, peer.identity)

    def _count_up(self) -> None:
        mine = [MemberId(self.me.node, self.me.disk)] if self.me.disk else []
        others = [peer.member for peer in self._peers.values() if peer.state is State.UP]
        self._up = (*mine, *(member for member in others if member is not None))

    def _changed(self, peer: _Peer, change: Change, before: Identity | None) -> None:
        self._out.append(Changed(peer.node, change, before, peer.identity))

    def _taken(self) -> list[MembershipEffect]:
        out, self._out = self._out, []
        return out
