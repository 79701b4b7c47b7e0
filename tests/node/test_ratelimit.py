"""Token buckets."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_config.limits import Rates
from node import ratelimit
from node.protocol import BODIES
from node.ratelimit import SLOW_MODE, Bucket, ConnectionRates, Throttle
from router.ids import RoomId

CONNECTION_LIMITS: Final = ("connection_commands", "connection_publishes", "connection_reads", "connection_joins")
ROOM, OTHER = RoomId("s", "a"), RoomId("s", "b")


def test_a_full_bucket_admits_its_burst_and_then_its_rate() -> None:
    bucket = Bucket(2.0, 3.0, 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(0.5) == 0.0
    assert bucket.take(0.5) == 0.5


def test_a_bucket_holds_one_token_at_least() -> None:
    assert Bucket(0.1, 0.0, 0.0).take(0.0) == 0.0


@given(st.floats(0.1, 100), st.floats(1, 100), st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_no_more_is_admitted_than_burst_and_rate_allow(rate: float, burst: float, gaps: list[float]) -> None:
    bucket = Bucket(rate, burst, 0.0)
    now, taken = 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now) == 0.0
        assert taken <= burst + rate * now + 1e-6


@given(st.floats(0.1, 100), st.integers(0, 20))
def test_whoever_waits_as_long_as_told_is_admitted(rate: float, tries: int) -> None:
    bucket = Bucket(rate, 1.0, 0.0)
    waits = [bucket.take(0.0) for _ in range(tries + 2)]
    assert bucket.take(max(waits) + 1e-9) == 0.0


def test_rates_that_are_off_make_no_buckets() -> None:
    rates = ConnectionRates(Rates(connection_commands=0.0, connection_reads=0.0, connection_publishes=1.0), 0.0)
    assert rates.commands is rates.reads is None
    assert rates.publishes is not None


@pytest.mark.parametrize(
    ("rates", "second", "admitted"),
    [
        (Rates(user_publishes=1.0, room_publishes=0.0, burst_seconds=1.0), (OTHER, "u1"), False),
        (Rates(user_publishes=1.0, room_publishes=0.0, burst_seconds=1.0), (ROOM, "u2"), True),
        (Rates(user_publishes=0.0, room_publishes=1.0, burst_seconds=1.0), (ROOM, "u2"), False),
        (Rates(user_publishes=0.0, room_publishes=1.0, burst_seconds=1.0), (OTHER, "u1"), True),
        (Rates(user_publishes=0.0, room_publishes=0.0), (ROOM, "u1"), True),
    ],
)
def test_users_and_rooms_have_rates(rates: Rates, second: tuple[RoomId, str], admitted: bool) -> None:
    throttle = Throttle(rates)
    assert throttle.publish(ROOM, "u1", 0, 0.0) == 0.0
    assert (throttle.publish(*second, 0, 0.0) == 0.0) is admitted


def test_sites_have_a_rate_of_their_own() -> None:
    throttle = Throttle(Rates(user_publishes=0.0, room_publishes=0.0, site_publishes=1.0, burst_seconds=1.0))
    assert throttle.publish(ROOM, "u1", 0, 0.0) == 0.0
    assert throttle.publish(OTHER, "u2", 0, 0.0) == pytest.approx(1.0)
    assert throttle.publish(RoomId("another", "a"), "u1", 0, 0.0) == 0.0
    assert throttle.publish(OTHER, "u2", 0, 1.0) == 0.0


@pytest.mark.parametrize("limit", ["user_publishes", "room_publishes", "site_publishes", SLOW_MODE])
def test_a_refusal_of_publishing_names_its_limit(limit: str) -> None:
    off = {"user_publishes": 0.0, "room_publishes": 0.0, "site_publishes": 0.0}
    rates = {name: 1.0 if name == limit else rate for name, rate in off.items()}
    throttle = Throttle(Rates(**rates, burst_seconds=1.0))
    slow_seconds = 1 if limit == SLOW_MODE else 0
    assert throttle.publish(ROOM, "u1", slow_seconds, 0.0) == 0.0
    assert throttle.publish(ROOM, "u1", slow_seconds, 0.0) == pytest.approx(1.0)
    assert throttle.limit == limit


@pytest.mark.parametrize(
    ("limit", "command"),
    [
        ("connection_commands", "ping"),
        ("connection_publishes", "publish"),
        ("connection_publishes", "rpc"),
        ("connection_reads", "history"),
        ("connection_reads", "presence"),
        ("connection_reads", "presence_stats"),
        ("connection_joins", "subscribe"),
    ],
)
def test_a_refusal_of_a_command_names_its_limit(limit: str, command: str) -> None:
    off = dict.fromkeys(CONNECTION_LIMITS, 0.0)
    rates = ConnectionRates(Rates(**{**off, limit: 1.0}, burst_seconds=1.0), 0.0)
    assert rates.take(command, 0.0) == 0.0
    assert rates.take(command, 0.0) == pytest.approx(1.0)
    assert (rates.limit, rates.refused) == (limit, 1)


def documented() -> dict[str, str]:
    """Of docs/limits.md: the rates that hold for each operation, by its name."""
    text = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE)
    return dict(rows)


def test_the_documented_table_has_every_command_and_every_rate() -> None:
    table = documented()
    assert set(table) == set(BODIES)
    named = set(re.findall(r"`(\w+)`", " ".join(table.values())))
    rates = {field.name for field in fields(Rates)} - {"burst_seconds"}
    assert named == rates | {SLOW_MODE}


@pytest.mark.parametrize("command", BODIES)
def test_the_documented_table_says_what_holds_for_a_command(command: str) -> None:
    said = set(re.findall(r"`(connection_\w+)`", documented()[command]))
    held = set()
    for limit in CONNECTION_LIMITS:
        rates = ConnectionRates(Rates(**{**dict.fromkeys(CONNECTION_LIMITS, 0.0), limit: 1.0}, burst_seconds=1.0), 0.0)
        rates.take(command, 0.0)
        if rates.take(command, 0.0):
            held.add(limit)
    assert said == held


def test_slow_mode_is_per_user_and_room() -> None:
    throttle = Throttle(Rates(user_publishes=0.0, room_publishes=0.0))
    assert throttle.publish(ROOM, "u1", 10, 0.0) == 0.0
    assert throttle.publish(ROOM, "u1", 10, 4.0) == pytest.approx(6.0)
    assert throttle.publish(OTHER, "u1", 10, 4.0) == 0.0
    assert throttle.publish(ROOM, "u2", 10, 4.0) == 0.0


def test_buckets_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratelimit, "MOST_KEPT", 2)
    throttle = Throttle(Rates(user_publishes=1.0, room_publishes=0.0, burst_seconds=1.0))
    for user in ("u1", "u2", "u3"):
        throttle.publish(ROOM, user, 0, 0.0)
    assert throttle.publish(ROOM, "u3", 0, 0.0) > 0
    assert throttle.publish(ROOM, "u1", 0, 0.0) == 0.0
