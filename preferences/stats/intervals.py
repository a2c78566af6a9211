"""Intervals in closed form for a share of successes, and for any mean of values in [0, 1] whose error is known.

Pure functions. All give [low, high] within [0, 1], and mirror when successes and failures are exchanged.
"""

import numpy as np
from scipy.special import betaincinv, ndtri

LEVEL = 0.95
ADDED = 2  # trials that `exact_mean` adds


def wilson(successes: float, n: float, level: float = LEVEL) -> list[float]:
    """Wilson's score interval (1927, JASA 22(158)) for the share behind `successes` in n trials.

    The rates p with |p̂ - p| ≤ z √(p (1 - p) / n). Its coverage is `level` on average over p, and may fall below at
    some p. Raises ValueError unless 0 ≤ successes ≤ n and n > 0.
    """
    _check(successes, n, level)
    z = ndtri((1 + level) / 2)
    share, more = successes / n, z * z / n
    middle = (share + more / 2) / (1 + more)
    half = z * np.sqrt(share * (1 - share) / n + more / (4 * n)) / (1 + more)
    low = 0.0 if successes == 0 else float(middle - half)
    high = 1.0 if successes == n else float(middle + half)
    return [max(low, 0.0), min(high, 1.0)]


def clopper_pearson(successes: float, n: float, level: float = LEVEL) -> list[float]:
    """The exact interval of Clopper & Pearson (1934, Biometrika 26(4)): it covers with at least `level` at every rate.

    Quantiles of Beta(k, n - k + 1) and Beta(k + 1, n - k); neither k nor n need be whole, as `exact_mean` wants it.
    Raises ValueError unless 0 ≤ successes ≤ n and n > 0.
    """
    _check(successes, n, level)
    tail = (1 - level) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return [low, high]


def exact_mean(mean: float, standard_error: float, n: int, level: float = LEVEL) -> list[float]:
    """Clopper & Pearson's interval at the effective number of trials: for the mean of values in [0, 1].

    `n` counts what was drawn independently (prompts, or groups of them); `standard_error` is the usual one, with n - 1,
    or cluster-robust where there are clusters. The effective number of trials is that of wins and
    losses whose share would have this error (Korn & Graubard 1998, Survey Methodology 24(2), section 2): more than n
    with ties, fewer with raters. So that a few values apart from many equal ones are not taken for all there is, two
    trials more are counted as if they were wins and losses with this mean:

        n* = n (n + 2) / (n r + 2),   r = (n - 1) standard_error² / (mean (1 - mean))

    For wins and losses alone r = 1 and n* = n: Clopper & Pearson's own interval. Coverage by simulation, beside other
    intervals: benchmarks/results/coverage.md; of graded values that are nearly all the same, with a few far off, it can
    be 0.92. Raises ValueError for a mean outside [0, 1], a negative error, no values.
    """
    if not (0 <= mean <= 1 and standard_error >= 0 and n >= 1):
        raise ValueError(f"a mean of {mean:g} with error {standard_error:g} from {n} values has no interval")
    variance = mean * (1 - mean)
    ratio = (n - 1) * standard_error**2 / variance if variance > 0 else 1.0
    trials = n * (n + ADDED) / (n * ratio + ADDED)
    return clopper_pearson(min(mean * trials, trials), trials, level)


def _check(successes: float, n: float, level: float) -> None:
    if not (n > 0 and 0 <= successes <= n and 0 < level < 1):
        raise ValueError(
            f"{successes:g} of {n:g} at level {level:g}: successes go from 0 to n, n is above 0, level in (0, 1)"
        )
