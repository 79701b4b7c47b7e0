"""Counting, and what Prometheus reads of it."""

import re
from collections import Counter
from operator import attrgetter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from node.counters import Counters
from node.metrics import FAMILIES, MOST_LABEL_VALUES, Build, Histogram, Metrics, quantile, scraper

BUILD = Build(version="1.2.3", python="3.11.0", node="n1", region="eu")
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def scraped(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples of a scrape by name and labels."""
    text = scraper(metrics, BUILD)().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_an_observation_falls_into_the_bucket_whose_bound_it_does_not_pass() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (0.5, 1, 1.5, 4, 4.1):
        histogram.observe(value)
    assert histogram.counts == [2, 1, 1, 1]
    assert histogram.total == pytest.approx(11.1)


@given(st.floats(0, 20), st.integers(1, 5))
def test_observing_several_of_a_value_is_observing_each(value: float, count: int) -> None:
    one_by_one, at_once = Histogram((1, 5, 10)), Histogram((1, 5, 10))
    for _ in range(count):
        one_by_one.observe(value)
    at_once.observe(value, count)
    assert one_by_one.counts == at_once.counts
    assert one_by_one.total == pytest.approx(at_once.total)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0], 0.5, None),
        ([10, 0, 0], 0.5, 0.5),
        ([10, 0, 0], 1.0, 1.0),
        ([5, 5, 0], 0.75, 2.0),
        ([0, 4, 0], 0.5, 2.0),
        ([1, 0, 9], 0.99, 3.0),
    ],
)
def test_a_quantile_is_interpolated_within_its_bucket(counts: list[int], share: float, expected: float | None) -> None:
    assert quantile((1.0, 3.0), counts, share) == expected


@given(st.lists(st.floats(0, 9), min_size=1), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_exact_one(values: list[float], share: float) -> None:
    bounds = (1.0, 3.0, 10.0)
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    found = quantile(bounds, histogram.counts, share)
    assert found is not None
    assert sum(value <= next(b for b in bounds if found <= b) for value in values) >= share * len(values) - 1e-6


def test_every_field_is_exported_under_its_name() -> None:
    metrics = Metrics()
    for number, family in enumerate(FAMILIES, 1):
        match attrgetter(family.field)(metrics):
            case Histogram() as histogram:
                histogram.observe(number)
            case Counter() as tally:
                names = family.label.split(",")
                tally["x" if len(names) == 1 else ("x",) * len(names)] += number
            case dict() as levels:
                levels["x", "x"] = number
            case _:
                owner, _, name = family.field.rpartition(".")
                setattr(metrics.sessions if owner else metrics, name, number)
    samples = scraped(metrics)
    for number, family in enumerate(FAMILIES, 1):
        if isinstance(attrgetter(family.field)(metrics), Histogram):
            assert samples[f"{family.name}_sum", ()] == number
            assert samples[f"{family.name}_count", ()] == 1
            assert samples[f"{family.name}_bucket", (("le", "+Inf"),)] == 1
        else:
            labels = tuple((name, "x") for name in sorted(family.label.split(","))) if family.label else ()
            assert samples[family.name, labels] == number


def test_every_field_has_a_family() -> None:
    exported = {family.field for family in FAMILIES}
    counted_by_the_hub = {"sessions.closes"}
    of_sessions = {f"sessions.{name}" for name in Counters.__slots__}
    assert exported == (set(Metrics.__slots__) - {"refreshers", "sessions"}) | of_sessions - counted_by_the_hub


def test_names_follow_the_conventions() -> None:
    for family in FAMILIES:
        assert family.name.startswith("chat_node_")
        assert family.name.endswith("_total") == family.form.value.startswith("counter")
        assert not re.search(r"_(ms|us|kb|mb|percent)\b", family.name)
        assert not {"room", "user", "channel", "address", "client"} & set(family.label.split(","))


def test_refreshing_sets_the_gauges() -> None:
    metrics = Metrics()

    def set_rooms() -> None:
        metrics.rooms = 7

    metrics.refreshers.append(set_rooms)
    metrics.refresh()
    assert metrics.rooms == 7


def test_the_rarest_labels_are_exported_together() -> None:
    metrics = Metrics()
    for code in range(MOST_LABEL_VALUES + 10):
        metrics.closed[code] += 1000 - code
    exported = {labels: value for (name, labels), value in scraped(metrics).items() if name.endswith("closed_total")}
    assert len(exported) == MOST_LABEL_VALUES + 1
    assert sum(exported.values()) == sum(metrics.closed.values())
    assert (("code", "other"),) in exported


def test_the_build_and_the_process_are_exported() -> None:
    samples = scraped(Metrics())
    labels = (("node", "n1"), ("python", "3.11.0"), ("region", "eu"), ("version", "1.2.3"))
    assert samples["chat_node_build_info", labels] == 1
    assert samples["process_resident_memory_bytes", ()] > 0


def test_the_document_lists_what_is_exported() -> None:
    rows = re.findall(r"^\| `(chat_node_\w+)` \| (.+?) \| (.*?) \| (.+?) \|$", DOCUMENT.read_text(), re.MULTILINE)
    expected = [
        (
            family.name,
            family.form.value.split(" ", maxsplit=1)[0],
            f"`{family.label}`" if family.label else "",
            family.meaning,
        )
        for family in FAMILIES
    ]
    assert rows == [
        *expected,
        ("chat_node_build_info", "gauge", "`version` `python` `node` `region`", "What runs; the value is always 1"),
    ]
