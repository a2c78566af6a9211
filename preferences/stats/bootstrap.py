"""Percentile bootstrap over items, of any statistics that are made of sums over items. Pure functions.

Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13. What hangs together is drawn together: all
units of an item, with all that was said of them. One set of draws serves all statistics.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistics = Callable[[Floats], Mapping[str, Floats]]

CELLS = 500_000  # numbers of a matrix that are worked on at a time: what a cache holds


class Part(NamedTuple):
    """What is to be known of some sums. `of` takes their totals (…, D) to {name: values (…, *)}, NaN = not defined."""

    sums: Any  # sparse array (items, D): what each item adds
    of: Statistics


class Estimate(NamedTuple):
    """A statistic (*) with the ends of its interval (*), NaN where not defined."""

    value: Floats
    low: Floats
    high: Floats


def estimate(
    parts: Sequence[Part], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> list[dict[str, Estimate]]:
    """The statistics of all `parts`, which are sums over the same items, with percentile intervals over these items.

    Resamples in which a statistic is not defined are left out of its interval. With fewer than two items nothing can
    be drawn, and all intervals are NaN.
    """
    count = parts[0].sums.shape[0] if parts else 0
    found = [part.of(np.asarray(part.sums.sum(axis=0)).ravel()) for part in parts]
    drawn: list[dict[str, list[Floats]]] = [{name: [] for name in part} for part in found]
    if count >= 2:
        across = [part.sums.T.tocsr() for part in parts]
        widest = max(sums.shape[0] for sums in across)
        for weights in draws(count, resamples, seed, widest):
            for part, sums, kept in zip(parts, across, drawn, strict=True):
                for name, values in part.of(np.ascontiguousarray((sums @ weights).T)).items():
                    kept[name].append(values)
    return [
        {name: Estimate(value, *_ends(value, kept[name], level)) for name, value in values.items()}
        for values, kept in zip(found, drawn, strict=True)
    ]


def draws(count: int, resamples: int, seed: int, widest: int = 1) -> Iterator[Floats]:
    """How often each of `count` items was drawn, as arrays (items, some resamples): all together `resamples` columns.

    `widest`: how many numbers the caller makes of each resample, so that the arrays stay small enough.
    """
    rng = np.random.default_rng(seed)
    most = max(1, CELLS // max(count, widest))
    for begin in range(0, resamples, most):
        some = min(most, resamples - begin)
        places = rng.integers(count, size=(some, count)) * some + np.arange(some)[:, None]
        yield np.bincount(places.ravel(), minlength=count * some).reshape(count, some).astype(np.float64)


def _ends(value: Floats, kept: Sequence[Floats], level: float) -> tuple[Floats, Floats]:
    """Percentiles of the draws that are not NaN, by linear interpolation, as numpy's."""
    if not kept:
        return np.full_like(value, np.nan), np.full_like(value, np.nan)
    ordered = np.sort(np.concatenate(kept), axis=0)  # NaN comes last
    known = (~np.isnan(ordered)).sum(axis=0)
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        place = share * np.maximum(known - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(known - 1, 0))
        low, high = (np.take_along_axis(ordered, at[None, ...], axis=0)[0] for at in (below, above))
        ends.append(np.where(np.isnan(value), np.nan, low + (high - low) * (place - below)))
    return ends[0], ends[1]
