"""When an item has enough answers: how surely it is known what is better. Pure functions, of consensus.py's model."""

import numpy as np

from preferences.stats.consensus import ItemFit

LEAST = 2  # answers, below which nothing is sure: two raters who have nothing to do with each other


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
