"""Reads histograms from a page in Prometheus' text format."""

import math
import re

_BUCKET = re.compile(r'^(?P<name>\w+)_bucket\{(?:.*,)?le="(?P<le>[^"]+)".*\} (?P<count>\S+)', re.MULTILINE)

Histogram = dict[float, float]
"""Upper bound in the metric's unit -> observations up to it, as the format counts them."""


def histograms(page: str) -> dict[str, Histogram]:
    """Every histogram of the page by name, the series of all labels added up."""
    found: dict[str, Histogram] = {}
    for match in _BUCKET.finditer(page):
        cells = found.setdefault(match["name"], {})
        bound = float(match["le"])
        cells[bound] = cells.get(bound, 0.0) + float(match["count"])
    return found


def since(before: Histogram, after: Histogram) -> Histogram:
    """The observations made between two readings."""
    return {bound: count - before.get(bound, 0.0) for bound, count in after.items()}


def quantile(histogram: Histogram, q: float) -> float | None:
    """The upper bound of the bucket that holds the q-th observation; None without any.

    No interpolation within the bucket: the answer is never better than what was observed.
    """
    bounds = sorted(histogram)
    if not bounds or histogram[bounds[-1]] <= 0:
        return None
    wanted = math.ceil(q * histogram[bounds[-1]])
    return next(bound for bound in bounds if histogram[bound] >= wanted)
