"""How far raters agree: raw agreement, Krippendorff's alpha, Kendall's W, tau-b. Pure functions on rank lists.

A *unit* is a pair of responses i < j of one item, in import order; an answer's *value* on it is -1 (the second is
better), 0 (tie) or 1 (the first is better). Ranks are 1 = best, equal = tie; only their order counts.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def pair_values(ranks: Ints) -> Ints:
    """Ranks (..., k) -> values (..., k(k-1)/2) in {-1, 0, 1} on the pairs (0,1), (0,2), …, (k-2,k-1)."""
    first, second = np.triu_indices(ranks.shape[-1], k=1)
    return np.sign(ranks[..., second] - ranks[..., first])


def stack_answers(items: Iterable[Sequence[Sequence[int]]]) -> list[tuple[Ints, Ints]]:
    """Stack the items that have equally many answers m and responses k, so that numpy can take them at once.

    Returns (indices of the items (n,), ranks (n, m, k)) for each such shape; items with fewer than two answers are
    left out, since nothing can be compared there. Raises ValueError for ragged answers or fewer than two responses.
    """
    shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
    kept: list[Sequence[Sequence[int]]] = []
    for index, answers in enumerate(items):
        kept.append(answers)
        lengths = {len(ranks) for ranks in answers}
        if len(lengths) > 1 or min(lengths, default=2) < 2:
            raise ValueError(
                f"item {index}: rank lists of lengths {sorted(lengths)}; they must be equal, and at least 2"
            )
        if len(answers) >= 2:
            shapes[len(answers), lengths.pop()].append(index)
    return [(np.array(rows), np.array([kept[row] for row in rows], dtype=np.int64)) for rows in shapes.values()]


def disagreements(counts: Floats) -> Floats:
    """Counts (..., C) of each value among a unit's m answers -> the off-diagonal sum of its coincidence matrix.

    A unit puts (ordered pairs of answers with values c and k) / (m - 1) into cell c, k, so the off-diagonal sum is
    (m² - Σ n_c²) / (m - 1). Units need m >= 2. Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", C-D.
    """
    size = counts.sum(axis=-1)
    return (size**2 - (counts**2).sum(axis=-1)) / (size - 1)


def nominal_alpha(observed: Floats, totals: Floats) -> Floats:
    """Krippendorff's alpha for nominal values; NaN where the values don't vary.

    `observed` (...) is the sum of `disagreements` over the units, `totals` (..., C) how often each value was given in
    them: alpha = 1 - (n - 1) observed / (n² - Σ totals²) with n = Σ totals. Krippendorff (2011), section D.
    """
    n = totals.sum(axis=-1)
    expected = n**2 - (totals**2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (n - 1) * observed / expected, np.nan)


def kendall_w(ranks: Ints) -> Floats:
    """Kendall's coefficient of concordance, corrected for ties: ranks (n, m, k) -> W (n,), NaN where all is tied.

    W = (12 Σ R_j² - 3 m² k (k+1)²) / (m² k (k² - 1) - m Σ T_r), R_j the sum of response j's mid-ranks over the m
    raters and T_r = Σ (t³ - t) over rater r's groups of t tied responses. Kendall & Gibbons (1990), "Rank Correlation
    Methods", chapter 6.
    """
    m, k = ranks.shape[1:]
    sums = rankdata(ranks, method="average", axis=-1).sum(axis=1)
    # Σ (t³ - t) over groups of ties = Σ (t² - 1) over responses, t the number of responses that share its rank.
    tied = (ranks[..., :, None] == ranks[..., None, :]).sum(axis=-1)
    correction = (tied**2 - 1).sum(axis=(1, 2))
    above = 12 * (sums**2).sum(axis=-1) - 3 * m**2 * k * (k + 1) ** 2
    below = m**2 * k * (k**2 - 1) - m * correction
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def tau_b(values: Ints) -> Floats:
    """Kendall's tau-b of every pair of raters: values (n, m, pairs) -> (n, m(m-1)/2), NaN where one ties everything.

    tau-b = Σ v_a v_b / sqrt(Σ v_a² Σ v_b²) over the pairs of responses. Kendall (1945), Biometrika 33(3).
    """
    products = np.einsum("nap,nbp->nab", values, values).astype(float)
    untied = np.einsum("naa->na", products)
    first, second = np.triu_indices(values.shape[1], k=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return products[:, first, second] / np.sqrt(untied[:, first] * untied[:, second])


def disagreement(items: Sequence[Sequence[Sequence[int]]]) -> list[float | None]:
    """How far the answers to each item differ: 1 - the share of pairs of answers that give a unit the same value.

    The mean is over the item's units; 0 = all say the same. None for an item with fewer than two answers.
    """
    result: list[float | None] = [None] * len(items)
    for rows, ranks in stack_answers(items):
        values, m = pair_values(ranks), ranks.shape[1]
        counts = np.stack([(values == value).sum(axis=1) for value in (-1, 0, 1)], axis=-1)  # (items, units, 3)
        same = (counts * (counts - 1)).sum(axis=-1) / (m * (m - 1))
        for row, share in zip(rows.tolist(), same.mean(axis=1).tolist(), strict=True):
            result[row] = 1 - share
    return result


def agreement(items: Sequence[Sequence[Sequence[int]]], *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Agreement between raters, ready for JSON; None (never NaN) where a number is not defined.

    `items` has one entry an item: its answers' rank lists, in import order of the responses.

    raw                                 share of pairs of answers to one unit that give it the same value
    krippendorff_alpha_nominal          over the units; 1 = perfect, 0 = as good as chance
    krippendorff_alpha_nominal_interval 95% percentile bootstrap over items; None with fewer than two items
    krippendorff_alpha_symmetrised      the same with every unit counted in both orientations, its values mirrored: it
                                        doesn't depend on which response came first in the import
    kendall_w, tau_b                    means over items, and over pairs of raters, with three or more responses
    units, raters_per_unit              how many units have two or more answers, and how many answers they have (mean)
    """
    observed, totals = np.zeros(len(items)), np.zeros((len(items), 3))
    agreeing = pairs = units = answers = 0
    concordances: list[Floats] = []
    correlations: list[Floats] = []
    for rows, ranks in stack_answers(items):
        m, k = ranks.shape[1:]
        values = pair_values(ranks)
        counts = np.stack([(values == value).sum(axis=1) for value in (-1, 0, 1)], axis=-1)  # (items, pairs, 3)
        observed[rows] = disagreements(counts).sum(axis=1)
        totals[rows] = counts.sum(axis=1)
        shape = counts.shape[0] * counts.shape[1]
        units, answers, pairs = units + shape, answers + shape * m, pairs + shape * m * (m - 1) // 2
        agreeing += int((counts * (counts - 1) // 2).sum())
        if k >= 3:
            concordances.append(kendall_w(ranks))
            correlations.append(tau_b(values).ravel())

    comparable = totals.sum(axis=1) > 0
    mirrored = totals + totals[:, ::-1]
    return {
        "raw": agreeing / pairs if pairs else None,
        "krippendorff_alpha_nominal": _number(nominal_alpha(observed.sum(), totals.sum(axis=0))),
        "krippendorff_alpha_nominal_interval": _interval(observed[comparable], totals[comparable], resamples, seed),
        "krippendorff_alpha_symmetrised": _number(nominal_alpha(2 * observed.sum(), mirrored.sum(axis=0))),
        "kendall_w": _mean(concordances),
        "tau_b": _mean(correlations),
        "units": units,
        "raters_per_unit": answers / units if units else None,
    }


def _interval(observed: Floats, totals: Floats, resamples: int, seed: int) -> list[float] | None:
    """95% percentile bootstrap of alpha over items; resamples in which the values don't vary are left out."""
    count = len(observed)
    if count < 2:
        return None
    rng = np.random.default_rng(seed)
    sums = np.column_stack([observed, totals])
    drawn = np.stack([np.bincount(rng.integers(count, size=count), minlength=count) @ sums for _ in range(resamples)])
    alphas = nominal_alpha(drawn[:, 0], drawn[:, 1:])
    alphas = alphas[~np.isnan(alphas)]
    return [float(bound) for bound in np.percentile(alphas, [2.5, 97.5])] if len(alphas) else None


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(parts: list[Floats]) -> float | None:
    values = np.concatenate(parts) if parts else np.empty(0)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None
