"""Which rows and members a register is made of when only the logs are left."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.central.birth import UNHEARD, NoRegister, out_of_all, out_of_one
from router.events import Configuration, ShardTail
from router.ids import MemberId
from router.log_check import LogMeta
from router.log_member import LogEnd, MemberLog
from router.register_wire import Certificate, Row, row_of

NAMES = ("a", "b", "c", "d")
A, B, C, D = (MemberId(name, f"d{name}") for name in NAMES)
ONE = b"1" * 16
OTHER = b"2" * 16


def end(epoch: int | None, lsn: int, commit: int, chain: bytes = ONE, promised: int | None = None) -> LogEnd:
    return LogEnd(ShardTail(1, lsn, chain, promised if promised is not None else epoch or 0, commit), epoch)


def log(name: str, of_shard: LogEnd | None, row: Configuration | None = None, birth: str = "c0ffee") -> MemberLog:
    rows, ends = {1: row} if row else {}, {1: of_shard} if of_shard else {}
    return MemberLog(Path(name), LogMeta(birth, f"d{name}", b"p" * 32, b"g" * 32), 64, {}, rows, ends)


def row(version: int, epoch: int, *members: MemberId) -> Configuration:
    return Configuration(1, version, epoch, members[0], members)


def found(*ends: LogEnd | None, rows: tuple[Configuration | None, ...] = (), copies: int = 3) -> Row:
    rows = (*rows, *[None] * len(ends))
    logs = {name: log(name, of_shard, known) for name, of_shard, known in zip(NAMES, ends, rows, strict=False)}
    (made,) = out_of_all(logs, copies, 2).rows
    return made


def names(made: Row) -> str:
    assert made.primary == made.members[0]
    return "".join(node for node, _ in made.members)


def test_a_node_that_was_alone_gives_its_birth_and_its_rows() -> None:
    alone = MemberLog(Path("a"), LogMeta("c0ffee", "da", b"p" * 32, b"g" * 32), 64, {1: row(4, 5, A)}, {}, {})
    born = out_of_one(alone, 3, 2)
    assert born.certificate == Certificate("c0ffee", 64, 1, 3, 2, 1, b"p" * 32, b"g" * 32)
    assert born.rows == [row_of(row(4, 5, A))]


@pytest.mark.parametrize(
    ("ends", "members"),
    [
        ([end(1, 9, 9), end(1, 9, 9), end(1, 9, 9)], "abc"),
        ([end(1, 9, 9), end(1, 10, 9), end(1, 9, 9)], "b"),  # 10 may be committed: b alone need not have been told
        ([end(1, 12, 9), end(2, 10, 9, OTHER), end(2, 10, 9, OTHER)], "bc"),  # 10..12 of a were never committed
        ([end(2, 9, 5), end(1, 20, 5, OTHER)], "a"),
        ([end(1, 9, 3), end(1, 9, 9), end(1, 9, 0)], "abc"),
        ([None, end(1, 9, 9), None], "b"),
        ([end(0, 0, 0), end(1, 9, 9)], "b"),
        ([end(None, 9, 9), end(1, 9, 9)], "ab"),
        ([end(None, 9, 9), end(1, 12, 9, OTHER)], "b"),
        ([end(None, 9, 9), end(3, 7, 7, OTHER)], "a"),
    ],
)
def test_the_logs_that_end_furthest_are_the_members(ends: list[LogEnd | None], members: str) -> None:
    assert names(found(*ends)) == members


@pytest.mark.parametrize(
    ("logs", "number"),
    [
        ([end(3, 9, 9)], 3 + UNHEARD),
        ([end(3, 9, 9), end(3, 9, 9, promised=7)], 7 + UNHEARD),
    ],
)
def test_a_row_is_above_all_that_any_log_has_seen(logs: list[LogEnd | None], number: int) -> None:
    made = found(*logs)
    assert (made.version, made.epoch) == (number, number)


def test_a_row_is_above_the_rows_that_logs_have() -> None:
    made = found(end(3, 9, 9), end(3, 9, 9), rows=(row(2, 12, A, B), row(20, 11, A, B)))
    assert (made.version, made.epoch) == (20 + UNHEARD, 20 + UNHEARD)


def test_there_are_no_more_members_than_copies_and_those_of_the_newest_row_go_first() -> None:
    ends = [end(3, 9, 9)] * 4
    assert names(found(*ends, rows=(row(2, 2, A, B), row(3, 3, D, C)), copies=3)) == "cda"
    assert names(found(*ends, copies=2)) == "ab"


def test_a_shard_that_was_never_written_to_keeps_its_members() -> None:
    assert names(found(None, None, None, rows=(row(2, 2, B, C), row(1, 1, A)))) == "bc"


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(NoRegister, match=r"Shard 1: the log of b goes beyond .* that of a has dropped .* Leave b out"):
        found(end(None, 9, 9), end(2, 10, 8, OTHER))


def test_logs_of_several_clusters_are_refused() -> None:
    logs = {"a": log("a", end(1, 1, 1)), "b": log("b", end(1, 1, 1), birth="cafe")}
    with pytest.raises(NoRegister, match=r"not of one cluster: a \(c0ffee\), b \(cafe\)"):
        out_of_all(logs, 3, 2)
    with pytest.raises(NoRegister, match="none was given"):
        out_of_all({}, 3, 2)


def test_a_shard_that_a_node_has_only_heard_of_has_a_row() -> None:
    meta = LogMeta("c0ffee", "da", b"p" * 32, b"g" * 32)
    heard = MemberLog(Path("a"), meta, 64, {}, {1: row(4, 5, A, B)}, {})
    assert out_of_all({"a": heard}, 3, 2).rows == [Row(1, 5 + UNHEARD, 5 + UNHEARD, [A], A)]
