"""What each rater's answers say about how they rate: siding with the others, favouring a position, haste.

Pure functions on rank lists; ranks are 1 = best, equal = tie. Every share comes with a 95% interval and with the n that
it stands on, because a rater of ten answers can look like anything.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import norm

from preferences.stats.agreement import pair_values
from preferences.stats.reliability import siding

ENOUGH_PAIRS = 20  # decided pairs, below which nobody is called biased
ENOUGH_ANSWERS = 10  # timed answers, below which nobody is called a speeder
HASTE = 1 / 3  # of the project's median seconds


def wilson_interval(share: float, n: float, level: float = 0.95) -> list[float]:
    """Wilson's score interval of a share that n > 0 independent trials gave; n need not be whole.

    Wilson (1927), JASA 22(158). It stays within [0, 1], and keeps its level near the ends and with few trials.
    """
    z = float(norm.ppf((1 + level) / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return [max(0.0, middle - half), min(1.0, middle + half)]


def agreement_with_others(items: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, dict[str, Any]]:
    """How far each rater sides with the others: {rater: {"value", "interval", "n"}}, of those who can be compared.

    `items` has one {rater: ranks} an item. An answer counts the pairs of responses on which the mean of the *other*
    answers to the item leans to one side: 1 where it takes that side, ½ where it ties, 0 where it takes the other.
    `value` is the mean over n answers of that share, so ½ is what a coin would get. It is what `reliability` is made
    of, before shrinking.

    The interval is Wilson's with n answers as trials. For pairs that is the usual one; for longer rankings, whose
    pairs hang together, it is too wide rather than too narrow.
    """
    sums, counts = siding(items)
    return {
        rater: {
            "value": sums[rater] / counts[rater],
            "interval": wilson_interval(sums[rater] / counts[rater], counts[rater]),
            "n": int(counts[rater]),
        }
        for rater in sums
        if counts[rater]
    }


def position_bias(answers: Iterable[tuple[Sequence[int], Sequence[int]]]) -> dict[str, Any] | None:
    """How often a rater prefers what was shown first: {"first", "interval", "n", "biased"}; None if nothing is decided.

    `answers` are (ranks, shown): ranks in import order, `shown` the responses' numbers in the order on the screen. Of
    all pairs of responses that an answer decides, `first` is the share where the one shown earlier is better. Since
    the order is drawn anew for every answer, ½ is expected of a rater who goes by the responses. `biased`: n is at
    least 20 pairs and the interval leaves ½ out, which also happens to one unbiased rater in twenty.

    The pairs of one ranking hang together, so they count for fewer trials than there are: over random orders, the
    number of pairs in order less the number out of order has the variance V of Kendall's S, and the interval is
    Wilson's with (pairs)² / ΣV trials. For a ranking of k without ties V = k(k-1)(2k+5)/18, and for groups of t tied
    responses Σ t(t-1)(2t+5)/18 less (Kendall & Gibbons 1990, "Rank Correlation Methods", chapter 4).
    """
    stacks: dict[int, list[tuple[Sequence[int], Sequence[int]]]] = defaultdict(list)
    for answer in answers:
        stacks[len(answer[0])].append(answer)
    first = pairs = 0
    variance = 0.0
    for k, stack in stacks.items():
        ranks, shown = np.array(stack).transpose(1, 0, 2)  # (answers, k) each
        values = pair_values(np.take_along_axis(ranks, shown, axis=1))  # 1: the one shown earlier is better
        first, pairs = first + int((values > 0).sum()), pairs + int((values != 0).sum())
        tied = (ranks[:, :, None] == ranks[:, None, :]).sum(axis=-1)  # t of each response's group, itself included
        spread = len(stack) * k * (k - 1) * (2 * k + 5) - ((tied - 1) * (2 * tied + 5)).sum()
        variance += float(spread) / 18
    if not pairs:
        return None
    interval = wilson_interval(first / pairs, pairs**2 / variance)
    biased = pairs >= ENOUGH_PAIRS and not interval[0] <= 0.5 <= interval[1]
    return {"first": first / pairs, "interval": interval, "n": pairs, "biased": biased}


def speeders(seconds: Mapping[Any, Sequence[float]]) -> dict[Any, dict[str, Any]]:
    """Who answers much faster than the others: {rater: {"is", "median_seconds", "limit_seconds"}}.

    `seconds` are the active seconds of each rater's answers, at least one each. The limit is a third of the project's
    median, which is the median of the raters' own medians, so that somebody who answers a lot does not set the pace.
    A speeder has ten answers or more, and a median below the limit.
    """
    own = {rater: median(values) for rater, values in seconds.items()}
    limit = HASTE * median(own.values()) if own else 0.0
    return {
        rater: {
            "is": len(seconds[rater]) >= ENOUGH_ANSWERS and own[rater] < limit,
            "median_seconds": own[rater],
            "limit_seconds": limit,
        }
        for rater in own
    }
