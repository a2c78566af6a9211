"""How far each rater can be trusted, from how often they side with the others."""

from collections.abc import Mapping, Sequence

import numpy as np

from preferences.stats.agreement import pair_values, stack_answers

PRIOR_ANSWERS = 4.0


def reliability(items: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, float]:
    """Each rater's reliability in [0, 1]: 1 = always with the others' majority, 0 = no better than a coin.

    `items` has one {rater: ranks} an item; ranks are 1 = best, equal = tie, in one order of the responses.

    1. For an answer, take the pairs of responses where the *other* raters of the item lean to one side (more of them
       prefer it than prefer the other side). The answer scores 1 where it takes that side, ½ where it ties, 0 where it
       takes the other; its agreement is the mean over those pairs. (Answers, not pairs, are the evidence: the pairs of
       one ranking hang together.)
    2. A rater with n such answers of mean agreement ā gets a = (n ā + 4 p) / (n + 4), where p is the mean agreement
       of all such answers: shrunk to the pool as if they had given four more answers like the pool's.
    3. reliability = max(0, 2a - 1), which takes away what a coin-flipper gets by chance (½).

    Who shares no such pair with anyone gets the pool's max(0, 2p - 1); where nothing can be compared, all get 1.0.
    A pool that agrees no better than chance has reliability 0 throughout, so don't divide by the sum unlooked.

    This is not Dawid-Skene (1979): raters count equally in the majority (so many contrary raters spoil everyone's
    number), ties and sides share one number, and there is no model of how hard an item is.
    """
    agreed, compared = siding(items)
    sums, counts = np.array(list(agreed.values())), np.array(list(compared.values()))
    if not counts.sum():
        return dict.fromkeys(agreed, 1.0)
    pool = sums.sum() / counts.sum()
    shrunk = (sums + PRIOR_ANSWERS * pool) / (counts + PRIOR_ANSWERS)
    return {rater: max(0.0, float(2 * trust - 1)) for rater, trust in zip(agreed, shrunk, strict=True)}


def siding(items: Sequence[Mapping[str, Sequence[int]]]) -> tuple[dict[str, float], dict[str, float]]:
    """Step 1 above: {rater: sum of the agreement of their answers}, {rater: how many answers could be compared}."""
    raters: dict[str, int] = {}
    people = [np.array([raters.setdefault(rater, len(raters)) for rater in item], dtype=np.int64) for item in items]
    sums, counts = np.zeros(len(raters)), np.zeros(len(raters))
    for rows, ranks in stack_answers([list(item.values()) for item in items]):
        values = pair_values(ranks)  # (items, raters, pairs)
        lean = np.sign(values.sum(axis=1, keepdims=True) - values)
        pairs = np.abs(lean).sum(axis=2)
        agree = ((1 + values * lean) / 2 * np.abs(lean)).sum(axis=2)
        who = np.stack([people[row] for row in rows])
        compared = pairs > 0
        np.add.at(sums, who[compared], agree[compared] / pairs[compared])
        np.add.at(counts, who[compared], 1)
    return dict(zip(raters, sums.tolist(), strict=True)), dict(zip(raters, counts.tolist(), strict=True))
