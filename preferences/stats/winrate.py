"""Win rates, accuracies and means with their error bars. Pure functions on arrays; nothing here knows models or files.

Intervals are about what was sampled independently: prompts, pairs, or groups of them. That of a win rate is
`intervals.exact_mean`, which covers as often as it says with few prompts and many ties, too; the bootstrap, given
beside it, does not (0.90 of the time with 50 prompts of which nine in ten are ties: benchmarks/results/coverage.md).
The others are bootstrap intervals (BCa: Efron 1987, JASA 82(397)), rather than percentile, since near the ends of [0,
1] and with few values they hold their level better (64 values, mean 0.9, skewed: percentile covers 0.90, BCa 0.94 of
the time), at a level made wider for few values.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from preferences.stats.crossed import over_prompts_and_raters
from preferences.stats.intervals import exact_mean
from preferences.stats.resample import NORMAL, ratio_interval

Floats = NDArray[np.float64]

LEVEL, RESAMPLES = 0.95, 10_000
EQUAL = "exact bound, since all {} have the same value (Clopper-Pearson)"
DETECTABLE = NORMAL.inv_cdf(0.975) + NORMAL.inv_cdf(0.80)  # two-sided 5% test, 80% power: 1.960 + 0.842


def win_rate(
    preferences: ArrayLike,
    cells: Sequence[tuple[int, str, float]] | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """How often the candidate beats the baseline: preferences (n,) in [0, 1], one a prompt, 1 = candidate better.

    The win rate is their mean, so a tie counts half; `ties` counts values of exactly 0.5. `interval` is that of
    `intervals.exact_mean`, without ties Clopper & Pearson's; when all values are equal it is the exact bound of
    `equal_values_interval`, and `method` says so. `bootstrap_interval` is BCa over prompts, None where all values are
    equal and where `interval` is about raters, too. `smallest_detectable` is that function's, and farther from 0.5
    where `standard_error` is larger for the raters. Raises ValueError for no values, or outside [0, 1].

    Where people judged, `cells` are (prompt number, rater, preference) of each rater on each prompt, whose mean a
    prompt's preference is; `raters` counts these people. From three raters on, standard error and interval are about
    other prompts and other raters (`crossed.over_prompts_and_raters`); fewer say too little of other people, and then
    they are about these raters on other prompts. `method` says which.
    """
    values = _values(preferences, 0, 1)
    crossed = None if cells is None else over_prompts_and_raters(cells, len(values), level)
    drawn: list[float] | None = None
    error, detectable = _standard_error(values, np.ones_like(values)), smallest_detectable(values)
    if crossed is not None:
        wider = crossed[0] / max(error or 0.0, 1e-9)
        error, interval, method = crossed
        detectable = None if detectable is None else 0.5 + (detectable - 0.5) * wider
        detectable = None if detectable is None or detectable > 1 else detectable
    elif _all_equal(values):
        interval, method = equal_values_interval(float(values[0]), len(values), level), EQUAL.format("prompts")
    else:
        interval = exact_mean(float(values.mean()), error or 0.0, len(values), level)
        method = "exact over prompts (Clopper-Pearson at the effective number of prompts)"
        drawn = _mirroring_interval(values, level, resamples, seed)
    if cells is not None and crossed is None:
        method += ", of these raters and no others"
    return {
        "n": len(values),
        "ties": int((values == 0.5).sum()),
        "win_rate": float(values.mean()),
        "standard_error": error,
        "level": level,
        "method": method,
        "interval": interval,
        "bootstrap_interval": drawn,
        "smallest_detectable": detectable,
        **({} if cells is None else {"raters": len({rater for _, rater, _ in cells})}),
    }


def smallest_detectable(preferences: ArrayLike) -> float | None:
    """The smallest true win rate above 0.5 that a two-sided 5% test finds with 80% power; None if above 1.

    0.5 + (z_0.975 + z_0.80) s / √n (Miller 2024, "Adding Error Bars to Evals", arXiv 2411.00640, section 5). The
    spread s is about 0.5, as under "no difference", with one win added so that it is never 0:
    s² = (Σ (x - ½)² + ¼) / (n + 1). Without ties s = 0.5, whatever the wins.
    """
    values = _values(preferences, 0, 1)
    spread = np.sqrt((((values - 0.5) ** 2).sum() + 0.25) / (len(values) + 1))
    rate = 0.5 + DETECTABLE * spread / np.sqrt(len(values))
    return float(rate) if rate <= 1 else None


def mean_interval(
    values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """The mean of values (n,), in their own unit, with a bootstrap interval over them.

    One value has interval and standard error None. Equal values have an interval of no width: without known bounds
    the data say nothing of how else they might have fallen.
    """
    x = _values(values)
    interval, _ = _interval(x, np.ones_like(x), "values", False, level, resamples, seed)
    error = _standard_error(x, np.ones_like(x))
    return {"mean": float(x.mean()), "interval": interval, "n": len(x), "standard_error": error}


def accuracy(
    correct: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The share of pairs decided rightly: correct (n,) of 1, 0, or ½ for an undecided pair.

    Pairs of one group (a ranking, a debate) hang together: with groups (n,) the bootstrap draws whole groups, and
    the standard error is cluster-robust. Equal values: as in `win_rate`, with groups counted for pairs.
    """
    sums, sizes, pairs = _clusters(_values(correct, 0, 1), groups)
    unit = "pairs" if groups is None else "groups"
    interval, method = _interval(sums, sizes, unit, True, level, resamples, seed)
    return {
        "accuracy": float(sums.sum() / sizes.sum()),
        "interval": interval,
        "standard_error": _standard_error(sums, sizes),
        "n": pairs,
        "groups": None if groups is None else len(sums),
        "method": method,
    }


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The mean of a - b over the same units (n,), in their own unit, with a bootstrap over units or whole groups."""
    left, right = _values(a), _values(b)
    if left.shape != right.shape:
        raise ValueError(f"a has {len(left)} values and b has {len(right)}; a pair needs one of each")
    sums, sizes, units = _clusters(left - right, groups)
    interval, _ = _interval(sums, sizes, "units", False, level, resamples, seed)
    error = _standard_error(sums, sizes)
    return {"mean": float(sums.sum() / sizes.sum()), "interval": interval, "n": units, "standard_error": error}


def _mirroring_interval(values: Floats, level: float, resamples: int, seed: int) -> list[float]:
    """The bootstrap interval, from the same draws whichever of the two models is called the candidate."""
    lean = np.round([(values - 0.5).mean(), ((values - 0.5) ** 3).mean()], 12)
    if lean[0] > 0 or (lean[0] == 0 and lean[1] > 0):
        low, high = ratio_interval(1 - values, np.ones_like(values), level, resamples, seed)[0]
        return [1 - high, 1 - low]
    low, high = ratio_interval(values, np.ones_like(values), level, resamples, seed)[0]
    return [(low + 1 - high) / 2, (high + 1 - low) / 2] if not lean.any() else [low, high]


def equal_values_interval(value: float, n: int, level: float = LEVEL) -> list[float]:
    """An interval for the mean of something in [0, 1] of which n independent draws all had the same value.

    With confidence `level` at most the share u = 1 - ((1 - level) / 2)^(1/n) of draws would differ (Clopper & Pearson
    1934, for 0 of n), and these could lie anywhere in [0, 1]: [(1 - u) value, (1 - u) value + u]. For n wins in n
    this is Clopper-Pearson's own interval of the win rate.
    """
    share = 1 - ((1 - level) / 2) ** (1 / n)
    return [float((1 - share) * value), float((1 - share) * value + share)]


def _values(values: ArrayLike, low: float = -np.inf, high: float = np.inf) -> Floats:
    """One-dimensional finite floats within [low, high]. Raises ValueError."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x):
        raise ValueError(f"values of shape {x.shape}; a list of at least one number is needed")
    if not np.isfinite(x).all() or x.min() < low or x.max() > high:
        raise ValueError(f"a value is not a number in [{low:g}, {high:g}]")
    return x


def _clusters(values: Floats, groups: ArrayLike | None) -> tuple[Floats, Floats, int]:
    """Sum and size of each group (groups,), and the number of values; without groups every value is its own."""
    if groups is None:
        return values, np.ones_like(values), len(values)
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    if index.shape != values.shape:
        raise ValueError(f"{len(values)} values and {index.size} groups; each value needs its group")
    sums, sizes = np.zeros(len(names)), np.zeros(len(names))
    np.add.at(sums, index, values)
    np.add.at(sizes, index, 1)
    return sums, sizes, len(values)


def _standard_error(sums: Floats, sizes: Floats) -> float | None:
    """Cluster-robust standard error of r = Σ sums / Σ sizes; None for one cluster.

    √(G/(G-1) Σ_g (sum_g - r size_g)²) / Σ sizes (Cameron & Miller 2015, J. Human Resources 50(2)); with clusters of
    one this is the usual s / √n.
    """
    count = len(sums)
    if count < 2:
        return None
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    return float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / sizes.sum())


def _wider(level: float, count: int) -> float:
    """The level at which a bootstrap of `count` units covers with about `level`: Hesterberg's expansion.

    2 Φ(√(n / (n - 1)) t_{n-1}) - 1 (Hesterberg 2015, The American Statistician 69(4), section 5.3): a resample's
    spread has n where the unbiased error has n - 1, and is itself uncertain, which t knows and the bootstrap does not.
    """
    reach = math.sqrt(count / (count - 1)) * float(stdtrit(count - 1, (1 + level) / 2))
    return min(2 * NORMAL.cdf(reach) - 1, 1 - 1e-9)


def _all_equal(values: Floats) -> bool:
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def _interval(
    sums: Floats, sizes: Floats, unit: str, bounded: bool, level: float, resamples: int, seed: int
) -> tuple[list[float] | None, str]:
    """Interval of Σ sums / Σ sizes by drawing clusters, and the words for how; `bounded` values lie in [0, 1]."""
    count = len(sums)
    means = sums / sizes
    if _all_equal(means):
        mean = float(sums.sum() / sizes.sum())
        if bounded:
            interval = equal_values_interval(min(max(mean, 0.0), 1.0), count, level)
            return interval, EQUAL.format(unit)
        return ([mean, mean] if count > 1 else None), "all equal"
    interval, method = ratio_interval(sums, sizes, _wider(level, count), resamples, seed)
    return interval, f"bootstrap over {unit} ({method})"
