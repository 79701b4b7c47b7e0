"""What scripts/soak makes of its samples; that it runs is seen by hand, as it takes a minute at least."""

from __future__ import annotations

import os

import pytest

from scripts.benchmarks.soak import growth, main, resident_kib


@pytest.mark.parametrize(
    ("samples", "kib_per_hour"),
    [
        ([], 0.0),
        ([(30.0, 80_000)], 0.0),
        ([(float(at), 80_000) for at in range(0, 3600, 30)], 0.0),
        ([(float(at), 80_000 + at) for at in range(0, 3600, 30)], 3600.0),
        # What fills in the first fifth does not count, nor does a sample that sticks out.
        ([(float(at), 10_000 if at < 600 else 80_000) for at in range(0, 3600, 30)], 0.0),
        ([(float(at), 200_000 if at == 3570 else 80_000) for at in range(0, 3600, 30)], 0.0),
    ],
)
def test_growth_is_what_creeps(samples: list[tuple[float, int]], kib_per_hour: float) -> None:
    assert growth(samples) == pytest.approx(kib_per_hour)


def test_a_process_has_memory_and_one_that_is_gone_has_none() -> None:
    assert resident_kib(os.getpid()) > 1000
    assert resident_kib(2**22 + 1) == 0


def test_a_time_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--minutes", "0"])
    assert ended.value.code == 2
    assert "'0' is no whole number above 0" in capsys.readouterr().err
