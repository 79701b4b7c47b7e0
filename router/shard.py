"""One shard at one member: follower, candidate, primary, and the ways between them.  Sans-I/O.

A follower takes over what the primary of the highest promised epoch sends. When the primary is gone, a member of the
configuration claims the shard: a compare-and-set of its row in the register, that names it primary of a new epoch.
Then it commits what it inherited by an EPOCH entry, and serves. The primary changes the members the same way, one row
after the other. A failed compare-and-set gives the row in force, so nothing is ever read from the register alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from router.errors import BrokenInvariant
from router.events import Batch, Claim, Configuration
from router.replication import Replication, ReplicationOptions
from router.sequencer import Sequencer
from router.wire import Ack, Config, Nack, Prep, Stale, row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from router.entry import Entry
    from router.ids import MemberId, ShardId
    from router.replica import Replica
    from router.replication import ReadLog
    from router.wire import PeerMessage

Confirmed: TypeAlias = "Callable[[bool], None]"


class Phase(Enum):
    """What a member is to a shard."""

    FOLLOWING = "following"
    CLAIMING = "claiming"
    TAKING_OVER = "taking over"
    SERVING = "serving"


@dataclass(slots=True, frozen=True)
class ShardOptions:
    """How a shard is kept; times in milliseconds, none of them affects safety.

    Attributes:
        copies: Members that a shard is to have (rf).
        min_sync: Members that must hold an entry before it is committed.
        rank_delay: A candidate waits so long for each member that stands before it in the row.
        retry: Of a claim or a change of members that had no answer, or was refused; doubles up to `retry_most`.
        retry_most: Its bound.
        change_every: Between two changes of the members, once the primary serves.
        grace: A new primary that seems to be away is left alone for so long, up to twice: two members that do not
            reach each other would else take the shard from each other before either could make somebody else a member.
        replication: Of the entries.
    """

    copies: int = 3
    min_sync: int = 2
    rank_delay: int = 300
    retry: int = 50
    retry_most: int = 2000
    change_every: int = 2000
    grace: int = 1000
    replication: ReplicationOptions = field(default_factory=ReplicationOptions)


class Outbox:
    """What the shards of a node want done, in this order: the batch, then all else.

    Attributes:
        batch: For the disk; None: nothing.
        touched: Shards that have a part in it, and peers to send to.
        claims: For the register.
        sends: To members, in order; one that is lost is sent again.
        reads: Of the log, for peers.
        announced: Rows that all nodes are to hear of.
        committed: Entries, in the order of each shard.
        lost: Entries of this node's tenure whose outcome is unknown now, as it has ended.
        forgotten: Entries that this member's log has given up: the primary has others in their places.
        served: Shards that have begun to serve.
        ended: Shards whose primary this member is no longer.
        confirmed: Who asked whether this member is still the primary, and the answer.
        wall_ms: The time of day, in milliseconds since 1970, of which EPOCH entries are; the driver keeps it.
    """

    __slots__ = (
        "announced", "batch", "claims", "committed", "confirmed", "ended", "forgotten", "lost", "reads", "sends",
        "served", "touched", "wall_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self.batch: Batch | None = None
        self.touched: dict[ShardId, Shard] = {}
        self.claims: list[Claim] = []
        self.sends: list[tuple[MemberId, PeerMessage]] = []
        self.reads: list[ReadLog] = []
        self.announced: list[Configuration] = []
        self.committed: list[Entry] = []
        self.lost: list[Entry] = []
        self.forgotten: list[Entry] = []
        self.served: list[ShardId] = []
        self.ended: list[ShardId] = []
        self.confirmed: list[tuple[Confirmed, bool]] = []
        self.wall_ms = 0

    def open_batch(self) -> Batch:
        """The batch that is gathered now."""
        if self.batch is None:
            self.batch = Batch(0)
        return self.batch


class Shard:
    """One shard at one member.

    Args:
        me: This member.
        replica: Its log.
        row: The newest row of the register that it knows; None: it knows of none.
        options: Times and numbers.
        out: Takes what it wants done.
        random: Gives numbers in [0, 1), for jitter.
        salt: Gives the salt of an entry.

    Attributes:
        phase: What this member is to the shard.
        sequencer: While it is primary, or taking over.
    """

    __slots__ = (
        "_claim", "_confirming", "_learner", "_options", "_out", "_owed", "_pause", "_promised_elsewhere",
        "_promised_then", "_random", "_salt", "_since", "_wait_until", "me", "phase", "replica", "replication", "row",
        "sequencer",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - what it is, what it knows, and what it is given
        self, me: MemberId, replica: Replica, row: Configuration | None, options: ShardOptions, out: Outbox,
        random: Callable[[], float], salt: Callable[[], bytes],
    ) -> None:  # fmt: skip
        self.me, self.replica, self._options, self._out = me, replica, options, out
        self._random, self._salt = random, salt
        self.row = row or Configuration(replica.shard, 0, 0, me, ())
        self.phase = Phase.FOLLOWING
        self.sequencer: Sequencer | None = None
        self.replication: Replication | None = None
        self._owed: tuple[MemberId, int, int] | None = None  # an ACK that waits for the disk: to whom, epoch, round
        self._claim: Claim | None = None  # on its way to the register
        self._promised_then = 0  # when the claim was made, by this member or another one
        self._promised_elsewhere = 0  # the highest epoch that a member has said that it promised
        self._learner: MemberId | None = None
        self._wait_until = 0
        self._pause = options.retry
        self._since: int | None = None  # the primary has been away since
        self._confirming: list[tuple[int, Confirmed]] = []

    @property
    def shard(self) -> ShardId:
        """Which one."""
        return self.replica.shard

    # -- as a member ---------------------------------------------------------------------------------------------

    def receive(self, source: MemberId, message: PeerMessage, now: int) -> None:
        """A message of another member.

        Raises:
            BrokenInvariant: A rule does not hold; this member's part in the shard has to end.
            CorruptEntry: The peer sent what is no entry.
        """
        match message:
            case Prep():
                self._on_prep(source, message, now)
            case Ack():
                self._on_ack(source, message, now)
            case Nack():
                self._on_nack(source, message, now)
            case Stale():
                self._promised_elsewhere = max(self._promised_elsewhere, message.promised)
                if self.sequencer is not None and message.promised > self.sequencer.epoch:
                    self._step_down(now)
            case Config():
                self.learn(row_of(message), now)

    def learn(self, row: Configuration, now: int) -> None:
        """Somebody says that this row is, or was, in force."""
        if row.version <= self.row.version:
            return
        self.row = row
        self._since = None
        if self.sequencer is not None and row.primary != self.me and row.epoch > self.sequencer.epoch:
            self._step_down(now)
        if self.phase is Phase.FOLLOWING:
            self._leave_alone(now)

    def _leave_alone(self, now: int) -> None:
        """A row that is news: its primary has just begun."""
        if self.row.primary != self.me:
            self._wait_until = now + int(self._options.grace * (1 + self._random()))

    def _on_prep(self, source: MemberId, prep: Prep, now: int) -> None:
        replica = self.replica
        if self._is_fenced(prep.epoch):
            self._out.sends.append((source, Stale(replica.shard, replica.promised)))
            return
        self._check_primary(source, prep.epoch)
        if prep.epoch > replica.promised:
            if self.sequencer is not None or self._claim is None or self._claim.new.epoch <= prep.epoch:
                self._step_down(now)
            self._promise(prep.epoch)
        elif self.sequencer is not None:
            raise BrokenInvariant(f"shard {self.shard}: {source} is primary of epoch {prep.epoch}, and so is {self.me}")
        self._since = None
        if not replica.fits(prep):
            hint = replica.lsn if prep.previous > replica.lsn else replica.commit
            self._out.sends.append((source, Nack(replica.shard, prep.epoch, hint)))
            return
        before = replica.lsn
        self._out.forgotten += replica.follow(prep, self._out.open_batch)
        if replica.agreed < replica.commit:  # it ended below what is committed here, so nothing could be compared
            self._out.sends.append((source, Nack(replica.shard, prep.epoch, replica.commit)))
            return
        self._owed = (source, prep.epoch, prep.round)
        if replica.lsn != before or not self._pay():
            self._touch()

    def _check_primary(self, source: MemberId, epoch: int) -> None:
        """An epoch has one primary; a register that was restored from a backup may give it to another one."""
        row = self.row
        if epoch == row.epoch and source != row.primary:
            raise BrokenInvariant(
                f"shard {self.shard}: {source} is primary of epoch {epoch}, and so is {row.primary}."
                " The register gave the epoch twice: rebuild it"
            )

    def _is_fenced(self, epoch: int) -> bool:
        """Whether a later primary has this member's promise (rule 4)."""
        return epoch < self.replica.promised

    def _promise(self, epoch: int) -> None:
        self._out.open_batch().promises.append(self.replica.promise(epoch))
        self._owed = None  # what was owed to an earlier primary counts for nothing now
        self._touch()

    def _pay(self) -> bool:
        """Acknowledge what is durable of what the primary has sent; False: nothing is, yet."""
        if self._owed is None:
            return False
        replica = self.replica
        source, epoch, round_ = self._owed
        upto = min(replica.agreed, replica.durable)
        if replica.durable_promise < epoch or upto < replica.commit:
            return False
        self._out.sends.append((source, Ack(replica.shard, epoch, round_, upto)))
        if upto == replica.agreed:
            self._owed = None
        self._out.committed += replica.learn_commit()
        return self._owed is None

    # -- the disk ------------------------------------------------------------------------------------------------

    def flush(self, ticket: int | None, now: int) -> None:
        """The batch with all that was appended and promised is on its way to the disk; None: there was none."""
        if ticket is not None:
            self.replica.flush(ticket)
        if self.replication is not None:
            self.replication.send(now)

    def persisted(self, ticket: int, now: int) -> None:
        """Every batch up to `ticket` is durable."""
        self.replica.persisted(ticket)
        if self.sequencer is None:
            self._pay()
        elif self.replica.durable_promise >= self.sequencer.epoch:
            self._acknowledge(self.me, self.replica.durable, now)

    def log_read(self, read: ReadLog, chain: bytes, wires: Sequence[bytes], now: int) -> None:
        """Entries above a place, and the chain up to it."""
        if self.replication is not None:
            self.replication.read(read.peer, read.after, chain, wires, now)

    def log_gone(self, read: ReadLog) -> bool:
        """The log has dropped entries above a place; gives whether who needs them is to be taught by a snapshot."""
        if self.replication is None:
            return False
        if read.peer == self._learner:
            return True  # it is sent nothing before it was taught
        self.replication.gave_up(read.peer)
        return False

    def taught(self, member: MemberId, lsn: int) -> None:
        """The learner has all up to here by a snapshot: the log follows."""
        if self.replication is not None and member == self._learner:
            self.replication.taught(member, lsn)
            self._touch()

    def untaught(self, member: MemberId, now: int) -> None:
        """The learner could not be given a snapshot: perhaps another one can."""
        if self.replication is not None and member == self._learner:
            self.replication.drop(member)
            self._learner = None
            self._wait_until = now + self._options.retry_most

    # -- as primary ----------------------------------------------------------------------------------------------

    def _is_of_my_epoch(self, epoch: int) -> bool:
        return self.sequencer is not None and epoch == self.sequencer.epoch

    def _on_ack(self, source: MemberId, ack: Ack, now: int) -> None:
        if self.replication is None or not self._is_of_my_epoch(ack.epoch):
            return
        lsn = min(ack.lsn, self.replica.lsn)
        self.replication.acknowledged(source, lsn, ack.round, now)
        self._acknowledge(source, lsn, now)
        self._confirm()

    def _on_nack(self, source: MemberId, nack: Nack, now: int) -> None:
        if self.replication is None or not self._is_of_my_epoch(nack.epoch):
            return
        if nack.hint > self.replica.lsn:
            raise BrokenInvariant(
                f"shard {self.shard}: {source} has committed up to {nack.hint}, and the log of {self.me}, which is to"
                f" be primary of epoch {nack.epoch}, ends at {self.replica.lsn}."
                " The register has lost a row: rebuild it"
            )
        self.replication.refused(source, nack.hint, now)
        self._touch()

    def _acknowledge(self, member: MemberId, lsn: int, now: int) -> None:
        sequencer = self.sequencer
        if sequencer is None:
            return
        self._out.committed += sequencer.acknowledge(member, lsn)
        if self.phase is Phase.TAKING_OVER and sequencer.serving:
            self.phase = Phase.SERVING
            self._out.served.append(self.shard)
        if self.replication is not None:
            self.replication.send(now)

    def confirm(self, done: Confirmed, now: int) -> None:
        """Ask whether this member is still the primary; True only by members that said so after now (rule 12)."""
        if self.sequencer is None or self.replication is None:
            self._out.confirmed.append((done, False))
            return
        self._confirming.append((self.replication.next_round(), done))
        self.replication.send(now)
        self._confirm()

    def _confirm(self) -> None:
        if self.sequencer is None or self.replication is None:
            return
        if self._confirming:
            seen = self.replication.confirmed(self.sequencer.commit_set)
            while self._confirming and self._confirming[0][0] <= seen:
                self._out.confirmed.append((self._confirming.pop(0)[1], True))

    def _touch(self) -> None:
        self._out.touched[self.shard] = self

    # -- time ----------------------------------------------------------------------------------------------------

    def tick(self, now: int, up: Collection[MemberId], wanted: Sequence[MemberId]) -> None:
        """Time has passed.

        Args:
            now: Milliseconds of a clock that never goes back.
            up: Members that are up, as far as this one knows.
            wanted: Where the shard should be, the best place first.
        """
        if self.phase is Phase.FOLLOWING:
            self._watch(now, up)
        elif self.phase is Phase.CLAIMING:
            if self._claim is None and now >= self._wait_until:
                self._try_claim(now, up)
        elif self.replication is not None:
            self.replication.tick(now)
            self._keep(now, up, wanted)

    def _watch(self, now: int, up: Collection[MemberId]) -> None:
        """As a follower: claim the shard when its primary has been away for long enough."""
        row = self.row
        if not row.members or not self._may_claim(row) or now < self._wait_until:
            return
        if row.primary in up and row.primary != self.me:
            self._since = None
            return
        if self._since is None:
            self._since = now
        others = [member for member in row.members if member != row.primary]
        rank = others.index(self.me) if self.me in others else 0
        if now - self._since >= rank * self._options.rank_delay * (1 + self._random()):
            self._pause = self._options.retry
            self._try_claim(now, up)

    def found(self, members: Sequence[MemberId]) -> None:
        """Bring the shard into being, with this member among the first: nobody has written to it yet."""
        if self.me not in members:
            raise BrokenInvariant(f"shard {self.shard}: {self.me} would be primary without being of {members}")
        if self.phase is Phase.FOLLOWING and not self.row.members:
            self.phase = Phase.CLAIMING
            self._send_claim(Configuration(self.shard, self.row.version + 1, self.row.epoch + 1, self.me, (*members,)))

    def claim(self, now: int, up: Collection[MemberId]) -> None:
        """Become primary if nobody else is and this member may, without waiting: somebody wants the shard."""
        if self.phase is Phase.FOLLOWING and self.row.members and now >= self._wait_until:
            self._pause = self._options.retry
            self._try_claim(now, up)

    def claim_again(self, now: int, up: Collection[MemberId]) -> None:
        """The same after a claim that was refused."""
        if self.phase is Phase.CLAIMING and self._claim is None:
            self._try_claim(now, up)

    def _try_claim(self, now: int, up: Collection[MemberId]) -> None:
        row = self.row
        if not self._may_claim(row) or (row.primary in up and row.primary != self.me):
            self.phase = Phase.FOLLOWING
            return
        self.phase = Phase.CLAIMING
        self._pause = min(2 * self._pause, self._options.retry_most)
        self._wait_until = now + int(self._pause * (1 + self._random()))
        living = [self.me, *(member for member in row.members if member != self.me and member in up)]
        self._send_claim(Configuration(row.shard, row.version + 1, row.epoch + 1, self.me, self._fill(living, row)))

    def _fill(self, living: Sequence[MemberId], row: Configuration) -> tuple[MemberId, ...]:
        """The living, and as many of the others as it takes for `min_sync`.

        With fewer nothing could be committed either, and what is committed would hang on fewer disks than it is on.
        """
        others = [member for member in row.members if member not in living]
        return (*living, *others[: max(0, self._options.min_sync - len(living))])

    def _may_claim(self, row: Configuration) -> bool:
        """Only a member of the configuration in force may promote itself (rule 1)."""
        return self.me in row.members

    def _send_claim(self, new: Configuration) -> None:
        self._claim = Claim(new.version - 1, new)
        self._promised_then = max(self.replica.promised, self._promised_elsewhere)
        self._out.claims.append(self._claim)

    def _keep(self, now: int, up: Collection[MemberId], wanted: Sequence[MemberId]) -> None:
        """As primary: keep the members as they should be."""
        sequencer, replication = self.sequencer, self.replication
        if sequencer is None or replication is None or self._claim is not None:
            return
        if now < self._wait_until and (self.phase is Phase.SERVING or sequencer.pending):
            return  # who is only taking over may need another member for it, at once
        members = sequencer.configuration.members
        if sequencer.pending:  # its outcome is unknown: only another change tells
            self._change(members, now)
            return
        living = [m for m in members if m == self.me or (m in up and not replication.stalled(m, now))]
        if self._learner is not None and self._learner not in up:
            replication.drop(self._learner)
            self._learner = None
        if self._learner is not None and self._may_join(self._learner):
            living.append(self._learner)
        staying = self._fill(living, sequencer.configuration)
        if frozenset(staying) != frozenset(members):
            self._change(staying, now)
        elif self._learner is None and len(living) < self._options.copies:
            self._learner = next((m for m in wanted if m in up and m not in members), None)
            if self._learner is not None:
                replication.add(self._learner, now)
                self._touch()

    def _may_join(self, learner: MemberId) -> bool:
        """Whether a learner holds all that may be committed (rule 6)."""
        sequencer, replication = self.sequencer, self.replication
        if sequencer is None or replication is None:
            return False
        return replication.match(learner) >= max(sequencer.commit, sequencer.inherited)

    def _change(self, members: Sequence[MemberId], now: int) -> None:
        sequencer, replication = self.sequencer, self.replication
        if sequencer is None or replication is None:
            return
        row = sequencer.configuration
        new = Configuration(row.shard, row.version + 1, row.epoch + 1, self.me, tuple(members))
        held = 0 if self._learner is None else replication.match(self._learner)
        sequencer.propose(new, held)
        self._wait_until = now + self._options.retry_most
        self._send_claim(new)

    # -- the register --------------------------------------------------------------------------------------------

    def claimed(self, claim: Claim, current: Configuration | None, now: int, *, done: bool) -> None:
        """The register's answer.

        Args:
            claim: What was asked.
            current: The row in force, which is `claim.new` if it was done; None: nobody knows whether it was.
            now: Milliseconds.
            done: Whether it was this claim that put the row in force, not one of an earlier life.

        Raises:
            BrokenInvariant: The register has forgotten a row.
        """
        if claim is not self._claim:
            if current is not None:
                self.learn(current, now)
            return
        self._claim = None
        if current is None:
            self._unknown(now)
            return
        if current.version < claim.expected_version or current.epoch < self._promised_then:
            raise BrokenInvariant(
                f"shard {self.shard}: the register gives row {current.version} of epoch {current.epoch}; this member"
                f" has seen row {claim.expected_version}, and epoch {self._promised_then} was promised."
                " It was restored from an old backup: rebuild it"
            )
        if current.version < self.row.version:
            return  # news, and older than what this member has learned meanwhile
        self.row = current
        self._since = None
        if current.primary != self.me:
            self._step_down(now)
            self._leave_alone(now)
        elif self.sequencer is not None:
            self._adopt(current, now)
        elif done and current.epoch > self.replica.promised:
            self._take_over(current, now)
        # Otherwise the row is of an earlier life, or of a claim that was thought lost: `tick` claims a new epoch.

    def _unknown(self, now: int) -> None:
        """A compare-and-set without an answer: its row stays pending until another one has one."""
        self._wait_until = min(self._wait_until, now + int(self._pause * (1 + self._random())))
        self._pause = min(2 * self._pause, self._options.retry_most)

    def _take_over(self, row: Configuration, now: int) -> None:
        """This member is primary of a new epoch (rule 7)."""
        replica = self.replica
        self._promise(row.epoch)
        self.phase = Phase.TAKING_OVER
        self.sequencer = Sequencer(row, replica, self._options.min_sync)
        self.replication = Replication(replica, row.epoch, self.me, self._options.replication, self._out)
        self.replication.follow(row.members, row.epoch, now)
        self._out.open_batch().entries.append(self.sequencer.begin(self._out.wall_ms, self._salt()))
        self._settle(row, now)

    def _adopt(self, row: Configuration, now: int) -> None:
        """A change of the members is in force."""
        sequencer, replication = self.sequencer, self.replication
        if sequencer is None or replication is None or row.epoch <= sequencer.epoch:
            return
        self._promise(row.epoch)
        sequencer.reconfigure(row)
        if self._learner in row.members:
            self._learner = None
        followed = row.members if self._learner is None else (*row.members, self._learner)
        replication.follow(followed, row.epoch, now)
        self._settle(row, now)

    def _settle(self, row: Configuration, now: int) -> None:
        self._pause = self._options.retry
        self._wait_until = now + self._options.change_every
        self._out.announced.append(row)
        self._touch()

    def _step_down(self, now: int) -> None:
        """Somebody else is primary, or may be."""
        if self.sequencer is not None:
            self._out.lost += self.replica.uncommitted
            self._out.ended.append(self.shard)
            self.sequencer = self.replication = self._learner = None
            self._out.confirmed += [(done, False) for _, done in self._confirming]
            self._confirming.clear()
        self.phase = Phase.FOLLOWING
        self._claim = None
        self._since = None
        self._wait_until = now
