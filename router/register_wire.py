"""What nodes and the central register say to each other; their bytes, strictly decoded.

A message is a MessagePack array that begins with its tag. A node opens a session for its process first: its number is
given out by the register, once, and never again. In a session the node numbers its requests from 1, and the register
carries each out at most once:

* its answer is kept, over restarts too, and a request that comes again gets it again;
* answers are forgotten up to `settled`, below which the node waits for none, and beyond the newest `WINDOW` numbers;
  and with a session, of which the newest `SESSIONS` of a node are kept;
* a request of a forgotten session or number is answered `Unknown` and never carried out, however late it comes.

So a number tells what is forgotten from what is new, and no clock does. `Unknown` is as good as no answer: whoever
asked has to change the same row once more to learn what is in force (docs/decisions/0011).
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct
from typing_extensions import override

from router.errors import CorruptEntry
from router.events import Claim, Configuration
from router.ids import MemberId

MAX_MESSAGE: Final = 1 << 20  # bytes; MOST_ROWS rows of MOST_MEMBERS members with the longest names fit in
MOST_ROWS: Final = 128  # in a message
MOST_MEMBERS: Final = 32  # of a shard
WINDOW: Final = 64  # numbers of requests of a session whose answers are kept, and that a node may wait for
SESSIONS: Final = 16  # kept for each node: as many of its processes may still have requests on their way
MOST_ADDRESS: Final = 300  # characters: the longest host name has 253
KEY_BYTES: Final = 32  # of the secrets
MAPPING: Final = 1  # how rooms map to shards: `placement.shard_of`, one group

Number = Annotated[int, Meta(ge=0, lt=1 << 62)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Member = tuple[Name, Name]


class Row(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A shard's row; see `events.Configuration`. Version 0, without members: there is none."""

    shard: Number
    version: Number
    epoch: Number
    members: Annotated[list[Member], Meta(max_length=MOST_MEMBERS)]
    primary: Member | None = None


class Swap(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A compare-and-set: `row` is put where a row of version `expected` is."""

    expected: Number
    row: Row


class Open(Struct, tag="open", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A process, named by `boot`, wants a session; while it is kept, the same one, and what is fixed in the cluster.

    `address` is where it is answered (`Link.connect`).
    """

    boot: Name
    address: Annotated[str, Meta(max_length=MOST_ADDRESS)]


class CasRequest(Struct, tag="cas", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Compare-and-set these rows, each by itself, all in one transaction.

    Attributes:
        boot: Of the process.
        session: Of the process.
        n: The request's number in it, from 1.
        settled: Up to this number the process waits for no answer; below `n`.
        swaps: One for a shard at most.
    """

    boot: Name
    session: Number
    n: Number
    settled: Number
    swaps: Annotated[list[Swap], Meta(min_length=1, max_length=MOST_ROWS)]


class ReadRequest(Struct, tag="read", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Read rows of shards above `after` (-1: from the first), as they are now or later: a linearizable read."""

    boot: Name
    n: Number
    after: Annotated[int, Meta(ge=-1, lt=1 << 62)]


class Certificate(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A cluster's birth certificate; all but `copies`, `min_sync` and their version stays as it was made.

    Attributes:
        birth: The cluster's name for itself, in every stream epoch.
        shards: Over so many rooms are spread.
        mapping: Of the way in which rooms map to shards.
        copies: Members that a shard is to have.
        min_sync: Members that must hold an entry before it is committed.
        settings: Rises by one when an operator changes these two.
        pseudonym_key: Makes senders' pseudonyms; a secret.
        guest_key: Signs guests' ids; a secret.
    """

    birth: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9]{1,64}\Z")]
    shards: Annotated[int, Meta(ge=1, le=1 << 16)]
    mapping: Annotated[int, Meta(ge=1, lt=1 << 32)]
    copies: Annotated[int, Meta(ge=1, le=MOST_MEMBERS)]
    min_sync: Annotated[int, Meta(ge=1, le=MOST_MEMBERS)]
    settings: Number
    pseudonym_key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    guest_key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]

    @override
    def __repr__(self) -> str:
        """Without the secrets."""
        return f"<birth {self.birth}: {self.shards} shards, {self.copies} copies, min_sync {self.min_sync}>"


class Opened(Struct, tag="opened", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The answer to `Open`."""

    boot: Name
    session: Number
    certificate: Certificate


class Swapped(Struct, tag="swapped", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The answer to `CasRequest`: for each swap whether it was done, and the row in force after it.

    `settings` is that of the certificate now: when it has risen, `Open` gives the new one.
    """

    boot: Name
    session: Number
    n: Number
    settings: Number
    results: Annotated[list[tuple[bool, Row]], Meta(max_length=MOST_ROWS)]


class Rows(Struct, tag="rows", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The answer to `ReadRequest`, by shard; `more`: there are others above the last."""

    boot: Name
    n: Number
    settings: Number
    rows: Annotated[list[Row], Meta(max_length=MOST_ROWS)]
    more: bool


class Unknown(Struct, tag="unknown", array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Nobody knows any more what became of a request, and it is not carried out from now on."""

    boot: Name
    session: Number
    n: Number


Request: TypeAlias = Open | CasRequest | ReadRequest
Answer: TypeAlias = Opened | Swapped | Rows | Unknown

encode: Final = msgspec.msgpack.Encoder().encode
_decode_request: Final = msgspec.msgpack.Decoder(Request).decode
_decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode


def decode_request(data: bytes) -> Request:
    """A message of a node.

    Raises:
        CorruptEntry: It is none, or longer than any may be, or can't be meant.
    """
    _check_size(data)
    try:
        request: Request = _decode_request(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"a request to the register can't be read: {error}") from error
    if isinstance(request, CasRequest):
        _check(request)
    return request


def decode_answer(data: bytes) -> Answer:
    """A message of the register.

    Raises:
        CorruptEntry: It is none, or longer than any may be.
    """
    _check_size(data)
    try:
        answer: Answer = _decode_answer(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"an answer of the register can't be read: {error}") from error
    rows = [row for _, row in answer.results] if isinstance(answer, Swapped) else []
    for row in answer.rows if isinstance(answer, Rows) else rows:
        if row.version:
            _check_row(row)
    return answer


def row_of(configuration: Configuration) -> Row:
    """A row as it travels."""
    shard, version, epoch = configuration.shard, configuration.version, configuration.epoch
    members = [(member.node, member.disk) for member in configuration.members]
    primary = configuration.primary
    return Row(shard, version, epoch, members, (primary.node, primary.disk) if members else None)


def configuration_of(row: Row, otherwise: MemberId) -> Configuration:
    """A row as the cores know it.

    Args:
        row: As it travelled.
        otherwise: Stands as its primary if there is no row.
    """
    primary = otherwise if row.primary is None else MemberId(*row.primary)
    return Configuration(row.shard, row.version, row.epoch, primary, tuple(MemberId(*member) for member in row.members))


def swap_of(claim: Claim) -> Swap:
    """What a claim asks for."""
    return Swap(claim.expected_version, row_of(claim.new))


def _check_size(data: bytes) -> None:
    if len(data) > MAX_MESSAGE:
        raise CorruptEntry(f"a message of {len(data)} bytes about the register; at most {MAX_MESSAGE} are taken")


def _check(request: CasRequest) -> None:
    if request.n <= request.settled:
        raise CorruptEntry(f"request {request.n} settles up to {request.settled}, itself included")
    if len({swap.row.shard for swap in request.swaps}) < len(request.swaps):
        raise CorruptEntry(f"request {request.n} changes a shard twice")
    for swap in request.swaps:
        _check_row(swap.row)
        if swap.row.version != swap.expected + 1:
            raise CorruptEntry(
                f"shard {swap.row.shard}: version {swap.row.version} would follow {swap.expected}; it rises by one"
            )


def _check_row(row: Row) -> None:
    if row.primary not in row.members:
        raise CorruptEntry(f"shard {row.shard}: the primary {row.primary} is none of {row.members}")
    if len(set(row.members)) < len(row.members):
        raise CorruptEntry(f"shard {row.shard}: {row.members} names a member twice")
