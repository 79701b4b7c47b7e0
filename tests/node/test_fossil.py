"""Differences: applied by the SDK's own code they give the target, and they are text and shorter."""

from __future__ import annotations

import random

import pytest
from centrifuge.fossil import apply_delta  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st

from node import fossil
from node.fossil import BLOCK_BYTES, COPY_PROBES, MOST_PROBES, create

WORDS = [
    "",
    "a",
    "ab",
    "é",
    "ê",
    "ĩ",
    "👩‍🚀",
    "0123456789abcdef",
    "0123456789abcdeF",
    "a" * 40,
    "ê" * 20,
    '"key":',
    "\\",
]
texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=20), max_size=30).map("".join)


def applied(base: bytes, delta: bytes) -> bytes:
    return bytes(apply_delta(base, delta))


def copies(delta: bytes) -> int:
    """How many commands copy from the base; of a target without `@`."""
    return delta.count(b"@")


@given(texts, texts)
@example("", "")
@example("é" * 30, "ê" * 30)
@example("a" * 64, "a" * 65)
@example("x" * 70 + "a" + "y" * 70, "x" * 70 + "b" + "y" * 70)
def test_a_delta_makes_the_target_of_the_base_and_is_text_and_shorter(one: str, other: str) -> None:
    base, target = one.encode(), other.encode()
    delta = create(base, target)
    if delta is not None:
        delta.decode()
        assert len(delta) < len(target)
        assert applied(base, delta) == target


@given(texts, texts, texts, st.text(max_size=3))
def test_what_is_around_a_change_is_copied(head: str, tail: str, one: str, other: str) -> None:
    head, tail = f"{head}{'h' * 100}", f"{'t' * 100}{tail}"
    base, target = f"{head}{one}{tail}".encode(), f"{head}{other}{tail}".encode()
    delta = create(base, target)
    assert delta is not None
    assert len(delta) < 40 + len(other.encode())
    assert applied(base, delta) == target


def test_what_has_moved_is_found() -> None:
    rng = random.Random(1)
    first, second = (bytes(rng.choices(b"0123456789abcdef", k=1000)) for _ in range(2))
    delta = create(first + second, second + first)
    assert delta is not None
    assert len(delta) < 60
    assert applied(first + second, delta) == second + first


@pytest.mark.parametrize("other", ["ê", "ĩ", "ê-ĩ", "👩"])  # with the first byte of é, the last one, both
def test_a_run_that_is_cut_within_a_character_is_told_with_whole_characters(other: str) -> None:
    block = "b" * BLOCK_BYTES
    for around in ("{}", f"{{}}{block}é{block}", f"{block}é{block}{{}}", f"{{}}{block}é{block}{{}}"):
        base = f"{'k' * 50}{around.format(*'éé')}{'v' * 50}".encode()
        target = f"{'k' * 50}{around.format(other, other)}{'v' * 50}".encode()
        delta = create(base, target)
        assert delta is not None
        assert other in delta.decode()
        assert applied(base, delta) == target


@pytest.mark.parametrize("target", [b"", b"1", b'{"all":"different"}', bytes(range(33, 64)) * 100])
def test_without_a_gain_there_is_none(target: bytes) -> None:
    assert create(b"nothing of that", target) is None


def test_of_scraps_no_more_are_told_than_the_work_is_bounded_to() -> None:
    rng = random.Random(2)
    scraps = [bytes(rng.choices(b"0123456789abcdef", k=BLOCK_BYTES)) for _ in range(1000)]
    base = b"".join(scraps)
    rng.shuffle(scraps)
    target = b"x".join(scraps)
    delta = create(base, target)
    assert delta is not None
    assert 10 < copies(delta) <= MOST_PROBES // COPY_PROBES + 2  # the start and the end are not searched for
    assert applied(base, delta) == target


def test_of_strangers_no_more_places_are_looked_at_than_the_work_is_bounded_to(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(3)
    base, target = (bytes(rng.choices(b"0123456789abcdef", k=100_000)) for _ in range(2))
    late = base[:50_000] + b"-" + target + base[50_000:50_100]
    monkeypatch.setattr(fossil, "MOST_PROBES", len(late))
    found = create(base, late)
    assert found is None or copies(found) > 1
    monkeypatch.undo()
    delta = create(base, late)
    assert delta is not None
    assert copies(delta) == 1  # the start; what comes after so many strangers is not looked for
    assert applied(base, delta) == late


def test_numbers_have_the_digits_of_fossil() -> None:
    target = b"x" * 100_000
    delta = create(b"x" * 99_999, target)
    assert delta is not None
    assert delta.startswith(b"OQW\nOQV@0,1:x")
    assert applied(b"x" * 99_999, delta) == target
