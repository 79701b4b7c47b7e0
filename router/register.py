"""The configuration register as the driver of shards uses it: claims go in, answers come out.  Sans-I/O.

A node alone has its rows in its own log (`Log.cas`); a cluster has them in one place, which `RegisterClient` asks. A
claim is answered once: with the row in force, or with None when its time is up and nobody knows whether it was carried
out, or will be. Then the only cure is another compare-and-set of the same row (docs/decisions/0011); the shard does
that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from typing_extensions import override

from router.errors import CorruptEntry
from router.ids import MemberId
from router.register_wire import (
    MOST_ROWS,
    WINDOW,
    CasRequest,
    Certificate,
    Open,
    Opened,
    ReadRequest,
    Rows,
    Swapped,
    Unknown,
    configuration_of,
    decode_answer,
    encode,
    swap_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from router.events import Claim, Configuration


class Answer(NamedTuple):
    """What became of a claim.

    Attributes:
        claim: The one that was asked.
        current: The row in force, which is `claim.new` if it was done; None: nobody knows whether it was.
        done: Whether it was this claim that put the row in force.
    """

    claim: Claim
    current: Configuration | None
    done: bool


@dataclass(slots=True)
class RegisterEffects:
    """What is to be done after a turn.

    Attributes:
        sends: To the register, in any order; one that is lost is sent again.
        answers: To claims, each of them once.
        certificate: The cluster's, when it was heard for the first time or has changed.
        rows: All of the register, once for each `read`.
    """

    sends: list[bytes] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    certificate: Certificate | None = None
    rows: list[Configuration] | None = None


class Register(Protocol):
    """What the driver of shards needs of a register; times are milliseconds of a clock that never goes back."""

    def ask(self, claim: Claim, now: int) -> None:
        """Compare-and-set a row; answered once, in the effects of a later `tick`."""

    def tick(self, now: int) -> RegisterEffects:
        """What has gathered until now: called after each turn in which something was asked, and when `due`."""

    @property
    def due(self) -> int | None:
        """When `tick` has to be called at the latest; None: when something comes."""


@dataclass(slots=True, frozen=True)
class RegisterOptions:
    """How the central register is asked; milliseconds, none of them affects safety.

    Attributes:
        deadline: A claim without an answer is given up.
        retry: Before a request is sent again; doubles up to `retry_most`, and a random part of that is waited.
        retry_most: Its bound.
        most_claims: That wait; further ones are given up at once.
    """

    deadline: int = 5000
    retry: int = 50
    retry_most: int = 2000
    most_claims: int = 4096


class _Attempts:
    """When something is sent, and sent again, with full jitter."""

    __slots__ = ("_count", "_options", "_random", "due")

    def __init__(self, options: RegisterOptions, random: Callable[[], float], now: int) -> None:
        self._options, self._random, self._count, self.due = options, random, 0, now

    def is_due(self, now: int) -> bool:
        """Whether to send now; then the next time is later."""
        if now < self.due:
            return False
        options = self._options
        self._count = min(self._count + 1, 32)
        most = min(options.retry_most, options.retry << self._count)
        self.due = now + options.retry + int(self._random() * (most - options.retry))
        return True


@dataclass(slots=True, frozen=True)
class _Waiting:
    claim: Claim
    deadline: int


@dataclass(slots=True)
class _Request:
    session: int
    body: bytes
    waiting: list[_Waiting]
    attempts: _Attempts


@dataclass(slots=True)
class _Read:
    n: int
    body: bytes
    attempts: _Attempts
    rows: list[Configuration]


class RegisterClient(Register):
    """A node's side of the central register.

    Claims of one turn go in one request. As the register carries a request out at most once and keeps its answer while
    this side waits for it, a request that has no answer is just sent again.

    Args:
        boot: Names this process.
        address: Where this node is answered.
        birth: Of the cluster that this node belongs to; empty: of whichever the register is.
        random: Gives numbers in [0, 1), for jitter.
        options: Times and bounds.
        now: Milliseconds.

    Attributes:
        certificate: The cluster's; None: not heard yet.
        foreign: The birth of another cluster, whose register it is that answers; no claim is answered by that.
        strays: Answers that were for nobody, and messages that were none.
    """

    __slots__ = (
        "_birth", "_boot", "_effects", "_n", "_open", "_opening", "_options", "_queue", "_random", "_read", "_requests",
        "_session", "certificate", "foreign", "strays",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - who asks, where and when
        self, boot: str, address: str, birth: str, random: Callable[[], float], options: RegisterOptions, now: int
    ) -> None:
        self._open = encode(Open(boot, address))
        self._boot, self._birth, self._random, self._options = boot, birth, random, options
        self.certificate: Certificate | None = None
        self.foreign = ""
        self.strays = 0
        self._session: int | None = None
        self._opening: _Attempts | None = self._attempts(now)
        self._n = 0
        self._queue: deque[_Waiting] = deque()  # not in a request yet
        self._requests: dict[int, _Request] = {}  # by number, rising
        self._read: _Read | None = None
        self._effects = RegisterEffects()

    @override
    def ask(self, claim: Claim, now: int) -> None:
        waiting = len(self._queue) + sum(len(request.waiting) for request in self._requests.values())
        if waiting >= self._options.most_claims:
            self._effects.answers.append(Answer(claim, None, done=False))
        else:
            self._queue.append(_Waiting(claim, now + self._options.deadline))

    def read(self, now: int) -> None:
        """Read all rows; they come in the effects of a `tick`. One that is under way begins again."""
        self._read_on(-1, [], now)

    def receive(self, body: bytes, now: int) -> None:
        """A message of the register; one that can't be read is counted."""
        try:
            answer = decode_answer(body)
        except CorruptEntry:
            self.strays += 1
            return
        if answer.boot != self._boot:
            self.strays += 1  # for an earlier process of this node
            return
        match answer:
            case Opened():
                self._on_opened(answer)
            case Swapped():
                self._on_swapped(answer, now)
            case Rows():
                self._on_rows(answer, now)
            case Unknown():
                self._on_unknown(answer, now)

    @override
    def tick(self, now: int) -> RegisterEffects:
        self._give_up(now)
        self._form_requests(now)
        effects, self._effects = self._effects, RegisterEffects()
        if self._opening is not None and self._opening.is_due(now):
            effects.sends.append(self._open)
        effects.sends += [request.body for request in self._requests.values() if request.attempts.is_due(now)]
        if self._read is not None and self._read.attempts.is_due(now):
            effects.sends.append(self._read.body)
        return effects

    @property
    @override
    def due(self) -> int | None:
        effects = self._effects
        if effects.answers or effects.certificate or effects.rows is not None:
            return 0
        times = [request.attempts.due for request in self._requests.values()]
        times += [waiting.deadline for request in self._requests.values() for waiting in request.waiting[:1]]
        times += [waiting.deadline for waiting in islice(self._queue, 1)]
        times += [attempts.due for attempts in (self._opening, self._read and self._read.attempts) if attempts]
        return min(times, default=None)

    def _attempts(self, now: int) -> _Attempts:
        return _Attempts(self._options, self._random, now)

    def _give_up(self, now: int) -> None:
        """Claims whose time is up are answered; what the register says of them later is for nobody."""
        while self._queue and self._queue[0].deadline <= now:
            self._effects.answers.append(Answer(self._queue.popleft().claim, None, done=False))
        late = [n for n, request in self._requests.items() if request.waiting[0].deadline <= now]
        for n in late:
            self._drop(n)
        if late and self._opening is None:  # a register that was made anew knows neither the session nor the address
            self._opening = self._attempts(now)

    def _drop(self, n: int) -> None:
        """Nobody knows what becomes of a request."""
        self._effects.answers += [Answer(waiting.claim, None, done=False) for waiting in self._requests.pop(n).waiting]

    def _form_requests(self, now: int) -> None:
        while self._queue and self._session is not None:
            oldest = next(iter(self._requests), self._n + 1)
            if self._n + 1 - oldest >= WINDOW:
                return
            waiting = self._take_batch()
            self._n += 1
            settled = min(oldest, self._n) - 1
            swaps = [swap_of(each.claim) for each in waiting]
            body = encode(CasRequest(self._boot, self._session, self._n, settled, swaps))
            self._requests[self._n] = _Request(self._session, body, waiting, self._attempts(now))

    def _take_batch(self) -> list[_Waiting]:
        """Claims for one request, of a shard one at most: the second is to find what the first has made of the row."""
        batch: dict[int, _Waiting] = {}
        while self._queue and len(batch) < MOST_ROWS and self._queue[0].claim.new.shard not in batch:
            waiting = self._queue.popleft()
            batch[waiting.claim.new.shard] = waiting
        return list(batch.values())

    # -- answers -------------------------------------------------------------------------------------------------

    def _on_opened(self, answer: Opened) -> None:
        if self._opening is None:
            self.strays += 1
            return
        if self._birth not in {"", answer.certificate.birth}:
            self.foreign = answer.certificate.birth
            return
        self._birth, self.foreign = answer.certificate.birth, ""
        self._session, self._opening = answer.session, None
        if self.certificate is None or answer.certificate.settings > self.certificate.settings:
            self.certificate = self._effects.certificate = answer.certificate

    def _on_swapped(self, answer: Swapped, now: int) -> None:
        request = self._requests.get(answer.n)
        if request is None or request.session != answer.session or len(request.waiting) != len(answer.results):
            self.strays += 1
            return
        del self._requests[answer.n]
        for waiting, (done, row) in zip(request.waiting, answer.results, strict=True):
            new = waiting.claim.new
            current = new if done else configuration_of(row, new.primary)
            self._effects.answers.append(Answer(waiting.claim, current, done))
        self._heed(answer.settings, now)

    def _on_rows(self, answer: Rows, now: int) -> None:
        read = self._read
        if read is None or read.n != answer.n:
            self.strays += 1
            return
        for row in answer.rows:
            if row.primary is not None:
                read.rows.append(configuration_of(row, MemberId(*row.primary)))
        if answer.more and answer.rows:
            self._read_on(answer.rows[-1].shard, read.rows, now)
        else:
            self._read, self._effects.rows = None, read.rows
        self._heed(answer.settings, now)

    def _on_unknown(self, answer: Unknown, now: int) -> None:
        request = self._requests.get(answer.n)
        if request is None or request.session != answer.session:
            self.strays += 1
            return
        self._drop(answer.n)
        if answer.session == self._session:
            self._session = None
            self._opening = self._attempts(now)

    def _heed(self, settings: int, now: int) -> None:
        """Ask for the certificate when it has changed."""
        if self.certificate is not None and settings > self.certificate.settings and self._opening is None:
            self._opening = self._attempts(now)

    def _read_on(self, after: int, rows: list[Configuration], now: int) -> None:
        self._n += 1
        body = encode(ReadRequest(self._boot, self._n, after))
        self._read = _Read(self._n, body, self._attempts(now), rows)
