"""What each rater's answers say about how they rate: siding with the others, favouring a position, haste.

Pure functions on rank lists; ranks are 1 = best, equal = tie. Every share comes with a 95% interval and with the n that
it stands on, because a rater of ten answers can look like anything.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from preferences.stats.coefficients import Floats
from preferences.stats.intervals import wilson
from preferences.stats.reliability import Rater
from preferences.stats.units import pair_values, stack_answers

ENOUGH_PAIRS = 20  # decided pairs, below which nobody is called biased
ENOUGH_ANSWERS = 10  # timed answers, below which nobody is called a speeder or a spammer
ENOUGH_TRUST = 0.3  # reliability, from which nobody is called a spammer
COIN = 0.05  # reliability that is as good as none
HASTE = 1 / 3  # of the project's median seconds


def agreement_with_others(items: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, dict[str, Any]]:
    """How far each rater sides with the others: {rater: {"value", "interval", "n"}}, of those who can be compared.

    `items` has one {rater: ranks} an item. An answer counts the pairs of responses on which the mean of the *other*
    answers to the item leans to one side: 1 where it takes that side, ½ where it ties, 0 where it takes the other.
    `value` is the mean over n answers of that share, so ½ is what a coin would get. All raters count equally in it:
    it is plain to see, and `reliability` (consensus.py) is what to go by.

    The interval is Wilson's with n answers as trials. For pairs that is the usual one; for longer rankings, whose
    pairs hang together, it is too wide rather than too narrow.
    """
    sums, counts = _siding(items)
    return {
        rater: {
            "value": sums[rater] / counts[rater],
            "interval": wilson(sums[rater], counts[rater]),
            "n": int(counts[rater]),
        }
        for rater in sums
        if counts[rater]
    }


def _siding(items: Sequence[Mapping[str, Sequence[int]]]) -> tuple[dict[str, float], dict[str, float]]:
    """{rater: sum of the agreement of their answers}, {rater: how many answers could be compared}."""
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
    trials = pairs**2 / variance
    interval = wilson(first / pairs * trials, trials)
    biased = pairs >= ENOUGH_PAIRS and not interval[0] <= 0.5 <= interval[1]
    return {"first": first / pairs, "interval": interval, "n": pairs, "biased": biased}


def length_bias(
    answers: Mapping[str, Sequence[tuple[Sequence[int], Sequence[int], Floats]]],
) -> dict[str, dict[str, Any] | None]:
    """How often each rater prefers the longer response, against what is to be expected of them.

    `answers` are each rater's (ranks, lengths, likely): ranks and lengths (characters) in import order, and for each
    pair of responses (0,1), (0,2), … what `consensus.expected` says: (pairs, 3), first better, tie, second better, from
    the other raters' answers. Of the n pairs of different length that a rater decides, `longer` is the share where the
    longer one is better, with Wilson's interval; the pairs of a ranking of k count for 2/k of a trial each.

    `expected` is what that share would be if they went by what the others' answers say as often as their reliability
    has it, plus what all raters together are above that: the model knows nothing of length, so where longer responses
    are better it expects too little of everybody. `biased`: n is at least 20, and `expected` is outside the
    interval. None if no such pair is decided.
    """
    counts = {rater: _longer(given) for rater, given in answers.items()}
    pairs = sum(own.pairs for own in counts.values())
    beyond = sum(own.longer - own.likely for own in counts.values()) / max(1.0, pairs)
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(answers)
    for rater, own in counts.items():
        if not own.pairs:
            continue
        expected = min(1.0, max(0.0, own.likely / own.pairs + beyond))
        low, high = wilson(own.longer / own.pairs * own.trials, own.trials)
        found[rater] = {
            "longer": own.longer / own.pairs,
            "interval": [low, high],
            "expected": expected,
            "n": int(own.pairs),
            "biased": own.pairs >= ENOUGH_PAIRS and not low <= expected <= high,
        }
    return found


class _Longer(NamedTuple):
    """Sums over the pairs of different length that a rater decided."""

    longer: float  # where the longer one is better
    likely: float  # where it would be, by the others' answers
    pairs: float
    trials: float


def _longer(answers: Iterable[tuple[Sequence[int], Sequence[int], Floats]]) -> _Longer:
    stacks: dict[int, list[tuple[Sequence[int], Sequence[int], Floats]]] = defaultdict(list)
    for answer in answers:
        stacks[len(answer[0])].append(answer)
    sums = np.zeros(4)
    for k, stack in stacks.items():
        ranks, lengths, likely = (np.array(part) for part in zip(*stack, strict=True))
        values, longest = pair_values(ranks), pair_values(-lengths)
        decided = (values != 0) & (longest != 0)
        first, _, second = np.moveaxis(likely, -1, 0)
        expected = (np.where(longest > 0, first, second)[decided] / (first + second)[decided]).sum()
        sums += [(values == longest)[decided].sum(), expected, decided.sum(), decided.sum() * 2 / k]
    return _Longer(*sums.tolist())


def spammer(rater: Rater) -> dict[str, Any]:
    """Whether somebody answers without looking: {"value", "interval", "n", "is"}, of their reliability.

    `is`: with ten answers or more, the value is below 0.3 and its interval reaches a coin (0.05). Who has too few
    answers, or shares too few items with others, keeps about the mean of all, and is not called one.
    """
    low, high = rater.interval
    found = rater.answers >= ENOUGH_ANSWERS and rater.reliability < ENOUGH_TRUST and low <= COIN
    return {"value": rater.reliability, "interval": [low, high], "n": rater.answers, "is": found}


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
