"""How sure a win rate is where people judged: about other prompts and other raters at once. Pure functions.

Prompts and raters are crossed: a rater judges several prompts, and a prompt may have several raters. An interval over
prompts alone says what these same raters would say of other prompts; where raters differ in taste it covers the truth
of all raters far too rarely (benchmarks/coverage.py).
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from preferences.stats.intervals import exact_mean

ENOUGH = 3  # raters: two say next to nothing of all others (Student's t with one degree of freedom is 12.7)


def over_prompts_and_raters(
    cells: Sequence[tuple[int, str, float]], prompts: int, level: float = 0.95
) -> tuple[float, list[float], str] | None:
    """Standard error, interval and its name, of the mean over prompts of the mean over each prompt's raters.

    `cells` are (prompt number, rater, preference in [0, 1]), one for each rater on each prompt; every one of the P
    prompts has one or more, and R raters gave them. With u = w (x - mean), w being a cell's weight in the mean, the
    two-way cluster-robust variance (Cameron, Gelbach & Miller 2011, J. Business & Economic Statistics 29(2), equation
    2.11) is A + B - C, and at least A:

        A = P/(P-1) Σ_prompts (Σ u)²    B = R/(R-1) Σ_raters (Σ u)²    C = Σ_cells u²

    A - C is what prompts add to B, and B, of few raters, is known badly. So each has its own Student's t, and half the
    interval's width is √(t²_{P-1} max(A - C, 0) + t²_{R-1} B), at least t_{P-1} √A: Banerjee's interval (1960, Sankhya
    22), which never covers less than it says whatever the two parts are. With C taken off B instead, as raters' own
    part, few raters that happen to agree make it too narrow (0.93 in place of 0.95 with three people). Ends are those
    of `intervals.exact_mean` at that width, so that they stay in [0, 1] and are skewed as they should be.

    None where there are fewer than three raters, or where all prompts have the same mean.
    """
    place = np.array([cell[0] for cell in cells], dtype=np.int64)
    names, rater = np.unique(np.array([cell[1] for cell in cells]), return_inverse=True)
    x = np.array([cell[2] for cell in cells], dtype=np.float64)
    weights = 1 / (prompts * np.bincount(place, minlength=prompts)[place])
    mean = float((weights * x).sum())
    u = weights * (x - mean)
    by_prompt, by_rater = np.bincount(place, u, prompts), np.bincount(rater, u, len(names))
    if len(names) < ENOUGH or prompts < 2 or np.ptp(by_prompt) * prompts <= 1e-12:
        return None
    a, b = (len(one) / (len(one) - 1) * float((one**2).sum()) for one in (by_prompt, by_rater))
    c = float((u**2).sum())
    t_prompts, t_raters = (float(stdtrit(count - 1, (1 + level) / 2)) for count in (prompts, len(names)))
    half = np.sqrt(max(t_prompts**2 * a, t_prompts**2 * max(a - c, 0.0) + t_raters**2 * b))
    interval = exact_mean(mean, float(half / t_prompts), prompts, level=level)
    return (
        float(np.sqrt(max(a, a + b - c))),
        interval,
        "over prompts and raters (two-way cluster-robust, exact at that error)",
    )
