"""The classic of finding the truth and each rater's errors from answers alone, when these are classes without an order.

Dawid & Skene (1979), "Maximum likelihood estimation of observer error-rates using the EM algorithm", Applied Statistics
28(1). It is what the model of consensus.py is compared with (benchmarks/who_is_right.py).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class DawidSkene(NamedTuple):
    classes: Floats  # (items, C): probability of each class
    marginals: Floats  # (C,): how often a class is the true one
    errors: Floats  # (raters, C, C): P(the rater says the second | the first is true)


def dawid_skene(item: Ints, rater: Ints, said: Ints, classes: int, *, prior: float = 0.0) -> DawidSkene:
    """Fit by EM from the majority's shares: answers (n,) of items 0 …, raters 0 …, and classes 0 … C - 1.

    `prior` is added to every count of a rater's answers, so that no answer is impossible; 0 is maximum likelihood. A
    rater may answer an item several times. Stops when no probability moves by more than 1e-7, or after 500 steps.
    """
    items, raters = item.max(initial=-1) + 1, rater.max(initial=-1) + 1
    one_hot = np.eye(classes)
    truth = np.zeros((items, classes))
    np.add.at(truth, item, one_hot[said])
    truth /= truth.sum(axis=1, keepdims=True)
    for _ in range(500):
        marginals = truth.mean(axis=0)
        errors = np.full((raters, classes, classes), prior)  # [rater, said, true], turned round below
        np.add.at(errors, (rater, said), truth[item])
        totals = errors.sum(axis=1, keepdims=True)
        errors = np.divide(errors, totals, out=np.full_like(errors, 1 / classes), where=totals > 0)
        with np.errstate(divide="ignore"):
            logs = np.tile(np.log(marginals), (items, 1))
            np.add.at(logs, item, np.log(errors[rater, said]))
        before, truth = truth, np.exp(logs - logs.max(axis=1, keepdims=True))
        truth /= truth.sum(axis=1, keepdims=True)
        if np.abs(truth - before).max(initial=0) < 1e-7:
            break
    return DawidSkene(truth, marginals, errors.swapaxes(1, 2))
