"""Could it be chance? A sign test, permutation tests, and corrections for having asked many times. Pure functions."""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

Floats = NDArray[np.float64]

CELLS = 2_000_000  # numbers that are drawn at a time
DISTINCT = 16  # drawing how many of a distinct value are dealt takes as long as dealing this many values


def sign_test(preferences: ArrayLike) -> dict[str, Any]:
    """Exact two-sided sign test of "neither model is better": preferences (n,) in [0, 1], 0.5 = tie.

    Ties say nothing of the direction: they are left out, and counted (Dixon & Mood 1946, JASA 41(236); Lehmann 1975,
    chapter 4). The p-value is that of the binomial test of wins among wins and losses at one half; the size of a
    preference doesn't matter, only its side. Only ties, or nothing at all: p = 1. Raises ValueError outside [0, 1].
    """
    values = np.asarray(preferences, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all() or ((values < 0) | (values > 1)).any():
        raise ValueError("a preference is not a number in [0, 1]")
    wins, losses = int((values > 0.5).sum()), int((values < 0.5).sum())
    p = min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5))) if wins + losses else 1.0
    return {"p_value": p, "wins": wins, "losses": losses, "ties": len(values) - wins - losses}


def permutation_test(
    differences: ArrayLike, clusters: ArrayLike | None = None, *, draws: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of "the differences (n,) are as likely to be turned round", by their sum.

    A paired test by sign flips (Fisher 1935, The Design of Experiments, section 21); what shares a cluster (a prompt's
    samples, a group of prompts) is flipped together. With 2^clusters ≤ draws all flips are made and p is exact; else it
    is (1 + flips at least as far from 0) / (1 + draws), which is never 0 (Phipson & Smyth 2010, SAGMB 9(1)). For
    preferences pass preferences - 0.5. Raises ValueError for no differences, and for clusters of another length.
    """
    values = _numbers(differences, "differences")
    if clusters is None:
        sums: NDArray[Any] = values
    else:
        _, index = np.unique(np.asarray(clusters), return_inverse=True)
        if index.shape != values.shape:
            raise ValueError(f"{len(values)} differences and {index.size} clusters; each difference needs its cluster")
        sums = np.bincount(index, weights=values)
    sums = sums[sums != 0]  # turning these round changes nothing
    seen = abs(sums.sum()) - 1e-12 * np.abs(sums).sum()  # an equal sum, added up in another order, is as far
    if 2 ** len(sums) <= draws:
        flips = 1.0 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        return float((np.abs(flips @ sums) >= seen).mean())
    rng, beyond = np.random.default_rng(seed), 0
    for begin in range(0, draws, step := max(1, CELLS // len(sums))):
        signs = rng.integers(0, 2, (min(step, draws - begin), len(sums)), dtype=np.int8) * 2.0 - 1
        beyond += int((np.abs(signs @ sums) >= seen).sum())
    return (1 + beyond) / (1 + draws)


def two_sample_permutation(a: ArrayLike, b: ArrayLike, *, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of "which values (m,) and (n,) belong to which group is chance", by the difference of their
    means.

    Values are dealt out to the groups anew (Fisher 1935; Pitman 1937). All ways where there are at most `draws` of
    them, else a sample with p as in `permutation_test`. Raises ValueError for a group without values.
    """
    left, right = _numbers(a, "values"), _numbers(b, "values")
    values, size = np.concatenate([left, right]), min(len(left), len(right))
    values -= values.mean()  # then the means' difference is as far from 0 as the smaller group's sum
    mine = values[: len(left)] if len(left) <= len(right) else values[len(left) :]
    seen = abs(mine.sum()) - 1e-12 * np.abs(values).sum()  # an equal sum, added up in another order, is as far
    if comb(len(values), size) <= draws:
        sums = np.array([values[list(chosen)].sum() for chosen in combinations(range(len(values)), size)])
        return float((np.abs(sums) >= seen).mean())
    rng, beyond = np.random.default_rng(seed), 0
    distinct, times = np.unique(values, return_counts=True)
    if DISTINCT * len(distinct) <= len(values):  # wins, ties, losses: it is enough to draw how many of each are dealt
        dealt = rng.multivariate_hypergeometric(times, size, size=draws, method="marginals") @ distinct
        return (1 + int((np.abs(dealt) >= seen).sum())) / (1 + draws)
    for begin in range(0, draws, step := max(1, CELLS // len(values))):
        dealt = rng.permuted(np.broadcast_to(values, (min(step, draws - begin), len(values))), axis=1)
        beyond += int((np.abs(dealt[:, :size].sum(axis=1)) >= seen).sum())
    return (1 + beyond) / (1 + draws)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979, Scand. J. Statistics 6(2)), in the order given.

    All that is called a difference at 0.05 is right with 95% probability, however the tests depend on one another.
    """
    values = _p_values(p)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return _in_order(np.minimum(steps, 1), order)


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Benjamini & Hochberg's adjusted p-values (1995, JRSS-B 57(1)), in the order given.

    Of all that is called a difference at 0.05, at most 5% is expected to be none, if the tests are independent or
    depend positively. Finds more than `holm` where there are many slices, and promises less.
    """
    values = _p_values(p)
    order = np.argsort(values, kind="stable")
    raised = values[order] * (len(values) / np.arange(1, len(values) + 1))
    steps = np.minimum.accumulate(raised[::-1])[::-1]
    return _in_order(np.minimum(steps, 1), order)


def _in_order(steps: Floats, order: NDArray[np.int64]) -> list[float]:
    result = np.empty_like(steps)
    result[order] = steps
    return [float(value) for value in result]


def _p_values(p: Sequence[float]) -> Floats:
    values = np.asarray(p, dtype=np.float64).reshape(-1)
    if not np.isfinite(values).all() or ((values < 0) | (values > 1)).any():
        raise ValueError("a p-value is not a number in [0, 1]")
    return values


def _numbers(values: ArrayLike, what: str) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(f"{what} of shape {x.shape}; a list of at least one finite number is needed")
    return x
