"""The primary's side of replication: what each peer of a shard is sent, and when again.  Sans-I/O.

Entries are sent as they are made, before anybody has them on disk, up to a window; what was not acknowledged in time
is sent again. A member of the commit set needs nothing that is committed; a learner is brought up from the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from router.wire import Prep

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from router.ids import MemberId, ShardId
    from router.replica import Replica
    from router.shard import Outbox


@dataclass(slots=True, frozen=True)
class ReplicationOptions:
    """Times in milliseconds; none of them affects safety.

    Attributes:
        heartbeat: Between two PREPs to a peer that has not heard the newest commit.
        resend: Without an answer, what was sent is sent again.
        stall: A member that is behind and has not moved for so long is evicted.
        window: Entries that may be on their way to a peer.
        chunk_bytes: Of entries in one PREP, beyond its first.
    """

    heartbeat: int = 250
    resend: int = 500
    stall: int = 1000
    window: int = 8192
    chunk_bytes: int = 1 << 19


@dataclass(slots=True, frozen=True)
class ReadLog:
    """Effect: read the entries above `after` of a shard's log for a peer; answered by `Shard.log_read`."""

    shard: ShardId
    after: int
    limit: int
    peer: MemberId


class _Peer:
    __slots__ = ("announced", "base", "heard", "match", "moved", "next", "reading", "round", "sent")

    def __init__(self, upto: int, now: int) -> None:
        self.next = upto + 1
        self.base = upto  # where sending began: what lies above it and is not acknowledged is on its way
        self.match = 0  # up to here it has acknowledged the log in this epoch
        self.announced = -1  # the commit that it was told of
        self.round = 0  # the newest that it has given back
        self.sent = self.heard = self.moved = now
        self.reading = False

    def restart(self, upto: int) -> None:
        """Go on behind a place, whatever was sent before."""
        self.next, self.base = upto + 1, upto

    @property
    def on_the_way(self) -> int:
        """Entries that were sent and not acknowledged."""
        return self.next - 1 - max(self.match, self.base)


class Replication:
    """What the members and the learner of one shard were sent.

    Args:
        replica: The primary's log.
        epoch: Of its tenure.
        me: The primary.
        options: Times and bounds.
        out: Takes what is to be sent and read.
    """

    __slots__ = ("_out", "epoch", "me", "options", "peers", "replica", "round")

    def __init__(self, replica: Replica, epoch: int, me: MemberId, options: ReplicationOptions, out: Outbox) -> None:
        self.replica, self.epoch, self.me, self.options, self._out = replica, epoch, me, options, out
        self.peers: dict[MemberId, _Peer] = {}
        self.round = 0

    def follow(self, members: Iterable[MemberId], epoch: int, now: int) -> None:
        """From now on these members are sent what is new, in this epoch; what they acknowledged before is void."""
        self.epoch = epoch
        known = self.peers
        upto = self.replica.lsn
        self.peers = {m: _Peer(known[m].next - 1 if m in known else upto, now) for m in members if m != self.me}

    def add(self, learner: MemberId, now: int) -> None:
        """Begin to bring somebody up."""
        self.peers.setdefault(learner, _Peer(self.replica.lsn, now))

    def drop(self, learner: MemberId) -> None:
        """End it."""
        self.peers.pop(learner, None)

    # -- answers -------------------------------------------------------------------------------------------------

    def acknowledged(self, member: MemberId, lsn: int, round_: int, now: int) -> None:
        """An ACK of this epoch."""
        peer = self.peers.get(member)
        if peer is None:
            return
        peer.heard = now
        peer.round = max(peer.round, round_)
        if lsn > peer.match or lsn == self.replica.lsn:
            peer.moved = now
        peer.match = max(peer.match, lsn)
        peer.next = max(peer.next, lsn + 1)

    def refused(self, member: MemberId, hint: int, now: int) -> None:
        """A NACK of this epoch: go on behind `hint`."""
        peer = self.peers.get(member)
        if peer is not None:
            peer.heard = now
            peer.restart(max(min(hint, self.replica.lsn), peer.match))
            peer.announced = -1  # so that it is sent something

    def stalled(self, member: MemberId, now: int) -> bool:
        """Whether a member is behind and does not move."""
        peer = self.peers.get(member)
        return peer is not None and peer.match < self.replica.lsn and now - peer.moved >= self.options.stall

    def match(self, member: MemberId) -> int:
        """Up to where a peer has acknowledged the log in this epoch."""
        peer = self.peers.get(member)
        return 0 if peer is None else peer.match

    def confirmed(self, members: Iterable[MemberId]) -> int:
        """The newest round that all these members have given back."""
        return min((self.peers[m].round for m in members if m in self.peers), default=self.round)

    # -- sending -------------------------------------------------------------------------------------------------

    def next_round(self) -> int:
        """Begin a round: an ACK that gives it back was sent after now."""
        self.round += 1
        for peer in self.peers.values():
            peer.announced = -1
        return self.round

    def send(self, now: int) -> None:
        """Send each peer what is new for it."""
        replica = self.replica
        for member, peer in self.peers.items():
            if peer.announced < 0 or (peer.next <= replica.lsn and peer.on_the_way < self.options.window):
                self._send(member, peer, now)

    def tick(self, now: int) -> None:
        """Send again what was not answered, and tell of commits."""
        options, replica = self.options, self.replica
        for member, peer in self.peers.items():
            if peer.next - 1 > peer.match and now - max(peer.sent, peer.heard) >= options.resend:
                peer.restart(peer.match or min(peer.next - 1, replica.commit))
                self._send(member, peer, now)
            elif now - peer.sent >= options.heartbeat and (
                peer.match < replica.lsn or peer.announced != replica.commit
            ):
                self._send(member, peer, now)

    def _send(self, member: MemberId, peer: _Peer, now: int) -> None:
        replica = self.replica
        if peer.reading:
            return
        previous = peer.next - 1
        if previous < replica.commit:
            peer.reading = True
            peer.sent = now
            limit = min(self.options.window, replica.commit - previous)
            self._out.reads.append(ReadLog(replica.shard, previous, limit, member))
            return
        waiting = islice(replica.uncommitted, previous - replica.commit, None)
        wires = (entry.wire for entry in islice(waiting, self.options.window))
        self._prep(member, previous, replica.chain_at(previous), wires, now)

    def gave_up(self, member: MemberId) -> None:
        """What a peer needs of the disk is not there any more; asked again by its next NACK, or evicted."""
        peer = self.peers.get(member)
        if peer is not None:
            peer.reading = False

    def taught(self, member: MemberId, lsn: int) -> None:
        """A learner has all up to here by a snapshot."""
        peer = self.peers.get(member)
        if peer is not None:
            peer.reading = False
            peer.restart(lsn)
            peer.announced = -1

    def read(self, member: MemberId, after: int, chain: bytes, wires: Sequence[bytes], now: int) -> None:
        """Entries of the disk for a peer; what is missing at the end is read again."""
        peer = self.peers.get(member)
        if peer is None:
            return
        peer.reading = False
        if peer.next != after + 1:
            peer.announced = -1
            return
        if not wires:  # the log did not know yet that it is committed: `tick` asks again
            return
        self._prep(member, after, chain, wires, now)

    def _prep(self, member: MemberId, previous: int, chain: bytes, wires: Iterable[bytes], now: int) -> None:
        """Send as many of these entries as fit into a PREP."""
        sent: list[bytes] = []
        room = self.options.chunk_bytes
        for wire in wires:
            room -= len(wire)
            if room < 0 and sent:
                break
            sent.append(wire)
        peer, commit = self.peers[member], self.replica.commit
        prep = Prep(self.replica.shard, self.epoch, self.round, previous, chain, commit, sent)
        self._out.sends.append((member, prep))
        peer.next = previous + len(sent) + 1
        peer.sent = now
        peer.announced = commit
