"""What one more answer is worth: when an item has enough of them, and what to ask about next. Pure functions.

The model is that of consensus.py. How uncertain it is which of two responses is better is the entropy of P(s_i > s_j)
in bits; what one more answer is worth is how much of it that answer is expected to take away (Lindley 1956, "On a
measure of the information provided by an experiment"), from a rater of whom nothing is known but what is known of all.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from preferences.stats.consensus import ItemFit, Parameters, Rater, Said, posterior, says
from preferences.stats.heard import Floats

LEAST = 2  # answers, below which nothing is sure: two raters who have nothing to do with each other
NOBODY = "\0"  # a rater whom no project knows


def certainty(item: ItemFit) -> float:
    """How surely it is known which responses are better, from 0.5 to 1: the share of pairs expected to be in order.

    For a pair it is the probability of the likelier side; for a ranking the mean of that over its pairs.
    """
    if not len(item.sure):
        return 0.5
    above = item.sure[np.triu_indices(len(item.sure), k=1)]
    return float(np.maximum(above, 1 - above).mean())


def is_enough(item: ItemFit, answers: int, sure: float) -> bool:
    """Whether an item with so many answers needs no more, where `sure` is wanted (above 0.5)."""
    return answers >= LEAST and certainty(item) >= sure


def worth(
    answers: Sequence[Said], raters: Mapping[str, float | Rater], parameters: Parameters, responses: int | None = None
) -> Floats:
    """Expected reduction of entropy, in bits, by one more answer to each pair of an item's responses: (k, k).

    It is symmetric, with 0 on the diagonal. Each pair is taken by itself, as if nothing else were known of its two
    responses. `responses` is k, which answers tell where there are any.
    """
    k = len(answers[0].ranks) if answers else (responses or 2)
    result = np.zeros((k, k))
    for i, j in combinations(range(k), 2):
        said = [Said(one.rater, (one.ranks[i], one.ranks[j])) for one in answers]
        if said:
            now = _entropy(posterior(said, raters, parameters).sure[0, 1])
            likely = says(said, raters, parameters, NOBODY)[0]
        else:
            now, tie = 1.0, parameters.ties
            likely = np.array([(1 - tie) / 2, tie, (1 - tie) / 2])
        after = [
            _entropy(posterior([*said, Said(NOBODY, ranks)], raters, parameters).sure[0, 1])
            for ranks in ((1, 2), (1, 1), (2, 1))
        ]
        result[i, j] = result[j, i] = now - float(likely @ after)
    return result


def next_pair(
    answers: Sequence[Said], raters: Mapping[str, float | Rater], parameters: Parameters, responses: int | None = None
) -> tuple[int, int]:
    """The two responses of an item that one more answer says most about; the first of equals."""
    found = np.round(np.triu(worth(answers, raters, parameters, responses), k=1), 9)
    i, j = np.unravel_index(int(found.argmax()), found.shape)
    return int(i), int(j)


def _entropy(share: float) -> float:
    """Of a side that is taken with this probability, in bits."""
    return float(-sum(part * np.log2(part) for part in (share, 1 - share) if part > 0))
