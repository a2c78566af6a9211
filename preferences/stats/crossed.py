"""How sure a win rate is where people judged: about other prompts and other raters at once. Pure functions.

Prompts and raters are crossed: a rater judges several prompts, and a prompt may have several raters. An interval over
prompts alone says what these same raters would say of other prompts; where raters differ in taste it covers the truth
of all raters far too rarely (benchmarks/coverage.py).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from preferences.stats.intervals import exact_mean

ENOUGH = 3  # raters: two say next to nothing of all others (Student's t with one degree of freedom is 12.7)
NEARLY_ONE = 0.999  # a p-value beyond which it is 1
LEAST_FREEDOM = 0.25  # degrees of freedom at which an interval has long been all of [0, 1]


def over_prompts_and_raters(
    cells: Sequence[tuple[int, str, float]], prompts: int, level: float = 0.95
) -> tuple[float, list[float], str] | None:
    """Standard error, interval and its name, of the mean over prompts of the mean over each prompt's raters.

    `cells` are (prompt number, rater, preference in [0, 1]), one for each rater on each prompt; every one of the P
    prompts has one or more, and R raters gave them. With u = w (x - mean), w being a cell's weight in the mean,

        A = P/(P-1) Σ_prompts (Σ u)²    B = Σ_raters (Σ u)² / (1 - Σ w)    C = Σ_cells u²

    the variance is A + B - C (Cameron, Gelbach & Miller 2011, J. Business & Economic Statistics 29(2), equation 2.11;
    B as Bell & McCaffrey 2002, Survey Methodology 28(2), which for equally busy raters is theirs, R/(R-1) Σ (Σ u)²).
    B is known from few people, so each part is taken with its own t quantile (Banerjee 1960, Sankhya 22, whose interval
    never covers less than it says), and the sum given in units of the prompts' own, as an error for `exact_mean`:

        √(max(A - C, 0) + B (t_{R*-1} / t_{P-1})²), and at least √A

    R* = 1 / Σ_raters (Σ w)² is how many raters of equal weight these are worth (Kish 1965): where one person gave most
    of the verdicts, B sees next to nothing of how much people differ, whatever R is. How often the
    interval holds the truth then stands in benchmarks/results/coverage_raters.md.

    None where there are fewer than three raters, or two prompts, or where all verdicts are the same.
    """
    found = _parts(cells, prompts)
    return None if found is None else _interval(found, level)


def p_over_prompts_and_raters(cells: Sequence[tuple[int, str, float]], prompts: int) -> float | None:
    """Two-sided p-value of "one half": 1 - the highest level at which the interval above excludes it; None as there."""
    found = _parts(cells, prompts)
    if found is None:
        return None

    def excludes(alpha: float) -> bool:
        low, high = _interval(found, 1 - alpha)[1]
        return low > 0.5 or high < 0.5

    inside, outside = 0.0, -10.0  # log10 of p; beyond 1e-10 the tails of a few people's t mean nothing
    if excludes(10**outside) or not excludes(NEARLY_ONE):
        return 10**outside if excludes(10**outside) else 1.0
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if excludes(10**middle) else (inside, middle)
    return float(10**inside)


class _Parts(NamedTuple):
    """A, B and C above, the mean, how many raters of equal weight these are worth, and the number of prompts."""

    mean: float
    a: float
    b: float
    c: float
    worth: float
    prompts: int


def _parts(cells: Sequence[tuple[int, str, float]], prompts: int) -> _Parts | None:
    prompt = np.array([cell[0] for cell in cells], dtype=np.int64)
    names, rater = np.unique(np.array([cell[1] for cell in cells]), return_inverse=True)
    x = np.array([cell[2] for cell in cells], dtype=np.float64)
    if len(names) < ENOUGH or prompts < 2 or np.ptp(x) <= 1e-12:
        return None
    weights = 1 / (prompts * np.bincount(prompt, minlength=prompts)[prompt])
    mean = float(weights @ x)
    u = weights * (x - mean)
    both = np.unique(prompt * len(names) + rater, return_inverse=True)[1]
    by_prompt, by_rater, by_both = np.bincount(prompt, u, prompts), np.bincount(rater, u), np.bincount(both, u)
    share = np.bincount(rater, weights)
    a, b = prompts / (prompts - 1) * float((by_prompt**2).sum()), float((by_rater**2 / (1 - share)).sum())
    worth = 1 / float((share**2).sum())
    return _Parts(mean, a, b, float((by_both**2).sum()), worth, prompts)


def _interval(found: _Parts, level: float) -> tuple[float, list[float], str]:
    freedom = (max(found.worth - 1, LEAST_FREEDOM), found.prompts - 1)
    t_raters, t_prompts = (float(stdtrit(count, (1 + level) / 2)) for count in freedom)
    ratio = (t_raters / t_prompts) ** 2
    error = float(np.sqrt(max(found.a, max(found.a - found.c, 0.0) + found.b * ratio)))
    interval = exact_mean(found.mean, error, found.prompts, level)
    return error, interval, "over prompts and raters (two-way cluster-robust, exact at that error)"
