"""The filter of known keys never says "never seen" of a key that it was given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.ids import RoomId, dedupe_key
from router.keyfilter import KeyFilter, key_number

NUMBERS = st.integers(min_value=0, max_value=(1 << 64) - 1)


def numbers(prefix: str, count: int) -> list[int]:
    room = RoomId("default", "lobby")
    return [key_number(dedupe_key(room, b"s" * 12, f"{prefix}{n}")) for n in range(count)]


@given(given_before=st.lists(NUMBERS, max_size=200))
def test_a_key_that_was_added_is_never_new(given_before: list[int]) -> None:
    keys = KeyFilter(64)
    for number in given_before:
        keys.add(number)
    assert not any(keys.add_new(number) for number in given_before)


@given(given_before=st.lists(NUMBERS, max_size=200))
def test_a_key_that_was_found_new_is_not_new_again(given_before: list[int]) -> None:
    keys = KeyFilter(64)
    for number in given_before:
        keys.add_new(number)
    assert not any(keys.add_new(number) for number in given_before)


def test_at_full_capacity_few_new_keys_are_looked_up_in_vain() -> None:
    keys = KeyFilter(4096)
    for number in numbers("old", 4096):
        keys.add(number)
    vain = sum(not keys.add_new(number) for number in numbers("new", 400))
    assert vain <= 12  # 1 in 100 is what the sizes are chosen for


def test_keys_are_counted_once() -> None:
    keys = KeyFilter(64)
    assert keys.add_new(5)
    assert not keys.add_new(5)
    assert keys.keys == 1
