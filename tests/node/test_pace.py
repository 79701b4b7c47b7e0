"""How long work gathers between turns, by tables and by a load that settles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.pace import BUSY, CALM, FULL, MEMORY, SHORTEST, Pace

LONGEST = 0.02


def paced(load: float, period: float, longest: float = LONGEST) -> Pace:
    pace = Pace(longest)
    pace.load, pace.period = load, period
    return pace


def turn(pace: Pace, share: float, seconds: float = 0.01) -> float:
    """A turn of a hub that works this share of the time."""
    return pace.rest(share * seconds, seconds)


@pytest.mark.parametrize(
    ("load", "period", "expected"),
    [
        (0.0, 0.0, 0.0),
        (CALM - 0.01, 0.01, 0.009),
        (CALM - 0.01, SHORTEST, 0.0),
        (CALM, 0.01, 0.01),
        (BUSY, 0.01, 0.01),
        (BUSY + 0.01, 0.0, SHORTEST),
        (BUSY + 0.01, 0.01, 0.012),
        (BUSY + 0.01, 0.019, LONGEST),
        (1.0, LONGEST, LONGEST),
    ],
)
def test_the_period_follows_the_load(load: float, period: float, expected: float) -> None:
    pace = paced(load, period)
    turn(pace, load)
    assert pace.load == pytest.approx(load)
    assert pace.period == pytest.approx(expected)


@pytest.mark.parametrize(
    ("load", "busy", "passed", "expected"),
    [
        (0.0, 0.01, 0.02, 0.1),  # half of a fifth of the memory
        (1.0, 0.0, 0.02, 0.8),
        (0.5, MEMORY / 4, MEMORY, 0.25),
        (0.5, 1.0, 10 * MEMORY, 1.0),  # what is longer than the memory is all of it
        (0.0, 0.02, 0.01, 0.1),  # clocks are not exact: nobody works more than all the time
        (0.5, 0.0, 0.0, 0.5),
        (0.5, 0.01, 0.0, 0.5),
    ],
)
def test_the_load_is_the_share_of_time_averaged_over_the_memory(
    load: float, busy: float, passed: float, expected: float
) -> None:
    pace = paced(load, 0.0)
    pace.rest(busy, passed)
    assert pace.load == pytest.approx(expected)


@pytest.mark.parametrize(("busy", "expected"), [(0.0, 0.01), (0.004, 0.006), (0.01, 0.0), (0.5, 0.0)])
def test_the_period_runs_from_the_start_of_a_turn(busy: float, expected: float) -> None:
    pace = paced((CALM + BUSY) / 2, 0.01)
    assert pace.rest(busy, busy / pace.load) == pytest.approx(expected)


def test_a_hub_that_has_little_to_do_never_rests() -> None:
    pace = Pace(LONGEST)
    assert [turn(pace, CALM - 0.05) for _ in range(1000)] == [0.0] * 1000


@pytest.mark.parametrize(("load", "full"), [(BUSY, False), (FULL, False), (FULL + 0.01, True), (1.0, True)])
def test_a_core_without_room_is_full(load: float, full: object) -> None:
    assert paced(load, LONGEST).full is full


def test_without_a_window_the_hub_never_rests() -> None:
    pace = Pace(0.0)
    assert [turn(pace, 1.0) for _ in range(100)] == [0.0] * 100


def test_after_a_rush_the_period_goes_back_to_none() -> None:
    pace = Pace(LONGEST)
    for _ in range(60):
        turn(pace, 1.0)
    assert pace.period == LONGEST
    for _ in range(60):
        turn(pace, 0.1)
    assert pace.period == 0.0


@pytest.mark.parametrize("rate", [500, 2000, 10_000, 20_000])
def test_the_period_settles_where_the_core_has_room(rate: int) -> None:
    """A turn costs a millisecond, and each message in it 30 microseconds more."""
    pace = Pace(LONGEST)
    rest, busy = 0.0, 0.001
    periods, loads = [], []
    for _ in range(5000):
        passed = rest + busy
        rest = pace.rest(busy, passed)
        busy = 0.001 + 0.00003 * rate * passed
        periods.append(pace.period)
        loads.append(pace.load)
    assert max(loads[-100:]) < BUSY + 0.05
    assert 0 < min(periods[-100:]) <= max(periods[-100:]) < LONGEST
    assert max(periods[-100:]) < min(periods[-100:]) * 1.5, "it swings"


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1))), st.floats(0, 0.1))
def test_whatever_is_measured_the_rest_is_within_bounds(turns: list[tuple[float, float]], longest: float) -> None:
    pace = Pace(longest)
    for busy, passed in turns:
        assert 0.0 <= pace.rest(busy, passed) <= longest
        assert 0.0 <= pace.load <= 1.0
        assert 0.0 <= pace.period <= longest
