"""All that is said of one candidate against one baseline: one function, so that it is the same everywhere."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from preferences.stats.crossed import over_prompts_and_raters, p_over_prompts_and_raters
from preferences.stats.length_controlled import length_controlled
from preferences.stats.power import more_prompts
from preferences.stats.sequential import anytime_interval
from preferences.stats.significance import sign_test
from preferences.stats.winrate import LEVEL, RESAMPLES, win_rate

DAILY = 10  # of the error that a level allows, the part that the interval over raters gets where it is looked at daily


def pair_fields(
    preferences: ArrayLike,
    *,
    candidate_length: ArrayLike | None = None,
    baseline_length: ArrayLike | None = None,
    difficulty: ArrayLike | None = None,
    cells: Sequence[tuple[int, str, float]] | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The fields of `winrate.win_rate`, and what else is known of preferences (n,), one a prompt, 1 = candidate better.

    `length_controlled_win_rate` and its standard error are those of `length_controlled`; None without lengths (n,) of
    both responses. `p_value` is that of the exact sign test over prompts, and 1 where more prompts are on the one side
    of one half and their mean is on the other: many small wins and a few large losses are no evidence of a win.
    `anytime_interval` may be looked at every day, `more_prompts` says how many more until `interval` can be expected to
    exclude one half (None where it does). A preference within 1e-12 of one half is a tie.

    Where people judged, `cells` are (prompt number, rater, preference) of each rater on each prompt, and a prompt's
    preference is their mean. From three raters on, `standard_error`, `interval`, `p_value` (that of the interval) and
    `more_prompts` are about other prompts and other raters (see `win_rate`). `anytime_interval`, made for prompts,
    then also holds the interval over both at a tenth of the error that `level` allows: so it held the truth at all
    looks in simulation (benchmarks/results/coverage_raters.md), which is no proof. The error of the
    length-controlled rate is larger in the same proportion as `standard_error` is.
    """
    values = np.asarray(preferences, dtype=np.float64)
    values = np.where(np.abs(values - 0.5) < 1e-12, 0.5, values)
    fields = win_rate(values, cells, level=level, resamples=resamples, seed=seed)
    controlled = None
    if candidate_length is not None and baseline_length is not None:
        differences = np.asarray(candidate_length, dtype=np.float64) - np.asarray(baseline_length, dtype=np.float64)
        controlled = length_controlled(values, differences, difficulty)
    rate, error = controlled or (None, None)
    test, anytime = sign_test(values), anytime_interval(values, level)
    p = test["p_value"] if (test["wins"] - test["losses"]) * (fields["win_rate"] - 0.5) >= 0 else 1.0
    people = None if cells is None else over_prompts_and_raters(cells, len(values), 1 - (1 - level) / DAILY)
    if cells is not None and people is not None:
        p = p_over_prompts_and_raters(cells, len(values))
        alone = float(values.std(ddof=1)) / len(values) ** 0.5
        error = None if error is None or alone < 1e-9 else error * max(1.0, fields["standard_error"] / alone)
        anytime = [min(anytime[0], people[1][0]), max(anytime[1], people[1][1])]
    return fields | {
        "length_controlled_win_rate": rate,
        "length_controlled_standard_error": error,
        "p_value": p,
        "anytime_interval": anytime,
        "more_prompts": more_prompts(fields["win_rate"], fields["interval"], len(values)),
    }
