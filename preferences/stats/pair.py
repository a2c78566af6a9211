"""All that is said of one candidate against one baseline: one function, so that it is the same everywhere."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from preferences.stats.length_controlled import length_controlled
from preferences.stats.power import more_prompts
from preferences.stats.sequential import anytime_interval
from preferences.stats.significance import sign_test
from preferences.stats.winrate import LEVEL, RESAMPLES, win_rate


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
    both responses. `p_value` is that of the exact sign test over prompts, `anytime_interval` may be looked at every
    day, `more_prompts` says how many more until `interval` can be expected to exclude one half (None where it does).

    Where people judged, `cells` are (prompt number, rater, preference) of each rater on each prompt, and a prompt's
    preference is their mean. Then `standard_error`, `interval` and `more_prompts` are about other prompts and other
    raters (see `win_rate`); the other fields are about these raters on other prompts.
    """
    values = np.asarray(preferences, dtype=np.float64)
    fields = win_rate(values, cells, level=level, resamples=resamples, seed=seed)
    controlled = None
    if candidate_length is not None and baseline_length is not None:
        differences = np.asarray(candidate_length, dtype=np.float64) - np.asarray(baseline_length, dtype=np.float64)
        controlled = length_controlled(values, differences, difficulty)
    rate, error = controlled or (None, None)
    return fields | {
        "length_controlled_win_rate": rate,
        "length_controlled_standard_error": error,
        "p_value": sign_test(values)["p_value"],
        "anytime_interval": anytime_interval(values, level),
        "more_prompts": more_prompts(fields["win_rate"], fields["interval"], len(values)),
    }
