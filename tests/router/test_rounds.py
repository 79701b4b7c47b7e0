"""What is told over and over: what is new comes first, and nothing is left out for good."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.rounds import Rounds


def test_what_is_new_is_told_at_once_and_the_rest_by_turns() -> None:
    rounds: Rounds[str, int] = Rounds(3, 1)
    for i, key in enumerate("abcd"):
        rounds.put(key, i)
    assert [rounds.next() for _ in range(4)] == [[0, 1, 2], [3, 0], [1], [2]]
    rounds.put("b", 9)
    rounds.put("c", 2)
    assert rounds.next() == [9, 3], "c is what it was"
    rounds.drop("a")
    assert [rounds.next() for _ in range(3)] == [[2], [9], [3]]
    assert sorted(rounds.values()) == [2, 3, 9]


def test_of_nothing_there_is_nothing_to_tell() -> None:
    assert Rounds[str, int](3, 1).next() == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3) | st.none())), st.integers(2, 5), st.integers(1, 4))
def test_all_that_is_to_be_told_is_told_in_time(steps: list[tuple[int, int | None]], most: int, repeated: int) -> None:
    rounds: Rounds[int, tuple[int, int]] = Rounds(most, min(repeated, most - 1))
    known: dict[int, tuple[int, int]] = {}
    for key, value in steps:
        if value is None:
            rounds.drop(key)
            known.pop(key, None)
        else:
            rounds.put(key, (key, value))
            known[key] = (key, value)
        told = rounds.next()
        assert len(told) <= most
        assert len(set(told)) == len(told)
        assert set(told) <= set(known.values())
    seen = {value for _ in range(20) for value in rounds.next()}
    assert seen == set(known.values())
