"""How a central register comes to be: of nothing, out of the log of a node that was alone, or out of all nodes' logs.

A register that is lost takes nothing with it: what was acknowledged is in the logs. A new one needs, for each shard, a
row above all that any member has seen, and members that hold all that was committed. A log that ends in a later epoch,
or in the same epoch further on, holds all that was committed in one that ends earlier, if at least one member of the
row that was in force is among them: a primary of a later epoch began with all that was committed before. So the logs
that end furthest are the members; the others are filled from them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from router.errors import RouterError
from router.ids import MemberId
from router.register_wire import MAPPING, Certificate, Row, row_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from router.log_member import LogEnd, MemberLog


UNHEARD: Final = 1000  # rows that were in force and that no disk has heard of, at most: each is a change within seconds


class NoRegister(RouterError):
    """What is there is not enough to make a register of it."""


@dataclass(slots=True, frozen=True)
class Born:
    """A register to be made.

    Attributes:
        certificate: Of the cluster.
        rows: Of the shards that have been used.
    """

    certificate: Certificate
    rows: list[Row]


def certificate_of(log: MemberLog, copies: int, min_sync: int) -> Certificate:
    """The certificate of the cluster that a log is of."""
    meta = log.meta
    return Certificate(meta.birth, log.shards, MAPPING, copies, min_sync, 1, meta.pseudonym_key, meta.guest_key)


def out_of_one(log: MemberLog, copies: int, min_sync: int) -> Born:
    """A register for the cluster whose first node has been alone until now: its rows as they are."""
    return Born(certificate_of(log, copies, min_sync), [row_of(row) for _, row in sorted(log.rows.items())])


def out_of_all(logs: Mapping[str, MemberLog], copies: int, min_sync: int) -> Born:
    """A register in place of one that is lost.

    Args:
        logs: By the names of the nodes: all that are left, at least one member of each row that was in force.
        copies: Members that a shard is to have.
        min_sync: Members that must hold an entry before it is committed.

    Raises:
        NoRegister: The logs are of several clusters, or do not tell what was committed.
    """
    certificates = {certificate_of(log, copies, min_sync): log.folder for log in logs.values()}
    if len(certificates) != 1:
        listed = ", ".join(f"{folder} ({certificate.birth})" for certificate, folder in certificates.items())
        raise NoRegister(f"The logs are not of one cluster: {listed or 'none was given'}. Give those of one.")
    certificate = next(iter(certificates))
    members = {MemberId(node, log.meta.disk_id): log for node, log in logs.items()}
    shards = sorted({shard for log in logs.values() for shard in (*log.ends, *log.rows, *log.learned)})
    return Born(certificate, [_row(shard, members, copies) for shard in shards])


def _row(shard: int, logs: Mapping[MemberId, MemberLog], copies: int) -> Row:
    rows = [known[shard] for log in logs.values() for known in (log.rows, log.learned) if shard in known]
    ends = {member: log.ends[shard] for member, log in logs.items() if shard in log.ends}
    seen = [number for row in rows for number in (row.version, row.epoch)]
    seen += [number for end in ends.values() for number in (end.tail.promised, end.epoch or 0)]
    number = max(seen) + UNHEARD
    named = max(rows, key=lambda row: row.version).members if rows else ()
    holding = _furthest(shard, ends) if ends else [member for member in logs if member in named] or list(logs)
    holding.sort(key=lambda member: member not in named)  # those that were members go first
    members = [(member.node, member.disk) for member in holding[:copies]]
    return Row(shard, number, number, members, members[0])


def _furthest(shard: int, ends: Mapping[MemberId, LogEnd]) -> list[MemberId]:
    """Members whose logs hold all that was committed and are alike.

    Raises:
        NoRegister: That can't be told.
    """
    committed = max(end.tail.commit for end in ends.values())
    able = {member: end for member, end in ends.items() if end.tail.lsn >= committed}
    dropped = [member for member, end in able.items() if end.epoch is None]  # all of it is committed
    unsure = [member for member, end in able.items() if end.tail.commit < committed]
    if dropped and unsure:
        raise NoRegister(
            f"Shard {shard}: the log of {_names(unsure)} goes beyond what it knows to be committed, and that of"
            f" {_names(dropped)} has dropped its last entry, so it can't be told which is right. Leave"
            f" {_names(unsure)} out; it is filled again from the others."
        )
    last = max(able, key=lambda member: (able[member].epoch or 0, able[member].tail.lsn))
    end = able[last].tail
    return [member for member, other in able.items() if (other.tail.lsn, other.tail.chain) == (end.lsn, end.chain)]


def _names(members: Sequence[MemberId]) -> str:
    return ", ".join(member.node for member in members)
