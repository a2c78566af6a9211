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
    2.11) is A + B - C:

        A = P/(P-1) Σ_prompts (Σ u)²    B = R/(R-1) Σ_raters (Σ u)²    C = N/(N-1) Σ_cells u²

    B - C is what raters add, and of few raters it often comes out as nothing by chance. So half of C is left in:
    variance = A + max(B - C/2, 0). Each part has its own Student's t (as in Cochran & Cox 1957, Experimental Designs,
    section 4.14), since R is small: half a width² = t²_{P-1} A + t²_{R-1} max(B - C/2, 0). Ends are those of
    `intervals.exact_mean` at that width, so that they stay in [0, 1] and are skewed as they should be.

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
    a, b, c = (len(one) / (len(one) - 1) * float((one**2).sum()) for one in (by_prompt, by_rater, u))
    more = max(b - c / 2, 0.0)
    t_prompts, t_raters = (float(stdtrit(count - 1, (1 + level) / 2)) for count in (prompts, len(names)))
    half = np.sqrt(t_prompts**2 * a + t_raters**2 * more)
    interval = exact_mean(mean, float(half / t_prompts), prompts, level=level)
    return float(np.sqrt(a + more)), interval, "over prompts and raters (two-way cluster-robust, exact at that error)"
