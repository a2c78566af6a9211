"""Coefficients of agreement as formulas on sums, so that a bootstrap can take thousands of sums at once.

Pure functions; NaN where a coefficient is not defined (callers make it None). The leading axes (…) are whatever the
caller sums over: resamples, tags, raters. A *unit* is what several raters gave one value each, m of them, and only
units with m >= 2 enter. `totals` (…, C) counts how often each of C values, in their order, was given.

The sums over units that the others are made of:

cells   (…, P) coincidences of two different values c < k, in one order: Σ n_c n_k / (m - 1); `where` (2, P) says which
shares  (…, C) Σ n_c / m
alike   (…) Σ over units of the share of pairs of its answers that are alike
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@lru_cache(maxsize=64)
def pairs_of(count: int) -> tuple[Ints, Ints]:
    """The pairs i < j of `count` things, in the order (0,1), (0,2), …: all i, all j; read them only."""
    pairs = np.triu_indices(count, k=1)
    for one in pairs:
        one.setflags(write=False)
    return pairs


def nominal_alpha(cells: Floats, totals: Floats) -> Floats:
    """Krippendorff's alpha where two values are the same or not: 1 is perfect, 0 chance; NaN if all values are one.

    alpha = 1 - (n - 1) Σ_{c<k} o_ck / Σ_{c<k} n_c n_k with n = Σ n_c. Krippendorff (2011), "Computing Krippendorff's
    Alpha-Reliability", section D.
    """
    n = totals.sum(axis=-1)
    return _beyond((n - 1) * cells.sum(axis=-1), (n**2 - (totals**2).sum(axis=-1)) / 2, _vary(totals))


def interval_alpha(cells: Floats, totals: Floats, where: Ints, values: Floats) -> Floats:
    """Krippendorff's alpha where the distance of two values is (v_c - v_k)²; `values` (…, C). NaN if all are one.

    alpha = 1 - (n - 1) Σ_{c<k} o_ck (v_c - v_k)² / Σ_{c<k} n_c n_k (v_c - v_k)². Krippendorff (2011), section E. The
    sum below the line is n Σ n_c (v_c - mean)².
    """
    n = totals.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        centred = values - (totals * values).sum(axis=-1, keepdims=True) / n
    apart = (cells * (centred[..., where[0]] - centred[..., where[1]]) ** 2).sum(axis=-1)
    return _beyond((n[..., 0] - 1) * apart, n[..., 0] * (totals * centred**2).sum(axis=-1), _vary(totals))


def ordinal_alpha(cells: Floats, totals: Floats, where: Ints) -> Floats:
    """Krippendorff's alpha where only the order of the values counts; NaN if all are one.

    Two values are as far apart as there are answers between them: (Σ_{g=c..k} n_g - (n_c + n_k) / 2)², Krippendorff
    (2011), section E. That is the interval alpha of the values' mid-ranks among all answers.
    """
    return interval_alpha(cells, totals, where, np.cumsum(totals, axis=-1) - totals / 2)


def fleiss_kappa(alike: Floats, shares: Floats) -> Floats:
    """Fleiss' kappa of many raters, whoever they are: alike (…), shares (…, C) -> (…); NaN if all values are one.

    kappa = (P - P_e) / (1 - P_e), P the mean of `alike` over the N = Σ shares units and P_e = Σ (share_c / N)². Fleiss
    (1971), Psychological Bulletin 76(5). Where units have different numbers of answers, each unit counts once, as in
    Gwet (2014), "Handbook of Inter-Rater Reliability", 4th edition, chapter 2.
    """
    n = shares.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _beyond(1 - alike / n, 1 - (shares**2).sum(axis=-1) / n**2, _vary(shares))


def cohen_kappa(alike: Floats, one: Floats, other: Floats) -> Floats:
    """Cohen's kappa of two raters: alike (…), how often each gave each value (…, C) -> (…); NaN if both gave only one.

    kappa = (p - p_e) / (1 - p_e) over the n units that both have, p = alike / n and p_e = Σ one_c other_c / n². Cohen
    (1960), Educational and Psychological Measurement 20(1).

    Of a rater against the group of the others, `alike` and `other` are means over these others, unit by unit: the
    index of Schouten (1982), Statistica Neerlandica 36(2); see also Vanbelle and Albert (2009), Biometrika 96(3).
    """
    n = one.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = (one * other).sum(axis=-1) / n**2
        return _beyond(1 - alike / n, 1 - chance, chance < 1 - 1e-12)


def kendall_w(ranks: Ints) -> Floats:
    """Kendall's coefficient of concordance, corrected for ties: ranks (n, m, k) -> W (n,), NaN where all is tied.

    W = (12 Σ R_j² - 3 m² k (k+1)²) / (m² k (k² - 1) - m Σ T_r), R_j the sum of response j's mid-ranks over the m
    raters and T_r = Σ (t³ - t) over rater r's groups of t tied responses. Kendall & Gibbons (1990), "Rank Correlation
    Methods", chapter 6.
    """
    m, k = ranks.shape[1:]
    mine, theirs = ranks[..., :, None], ranks[..., None, :]
    tied = (mine == theirs).sum(axis=-1)  # t of each response's group, itself included
    sums = ((theirs < mine).sum(axis=-1) + (tied + 1) / 2).sum(axis=1)
    # Σ (t³ - t) over groups of ties = Σ (t² - 1) over responses.
    below = m**2 * k * (k**2 - 1) - m * (tied**2 - 1).sum(axis=(1, 2))
    above = 12 * (sums**2).sum(axis=-1) - 3 * m**2 * k * (k + 1) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def tau_b(values: Ints) -> Floats:
    """Kendall's tau-b of every pair of raters: values (n, m, pairs) -> (n, m(m-1)/2), NaN where one ties everything.

    tau-b = Σ v_a v_b / sqrt(Σ v_a² Σ v_b²) over the pairs of responses, v in {-1, 0, 1}. Kendall (1945), Biometrika
    33(3).
    """
    products = np.einsum("nap,nbp->nab", values, values).astype(float)
    untied = np.einsum("naa->na", products)
    first, second = pairs_of(values.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return products[:, first, second] / np.sqrt(untied[:, first] * untied[:, second])


def _vary(totals: Floats) -> NDArray[np.bool_]:
    return (totals > 0).sum(axis=-1) > 1


def _beyond(observed: Floats, expected: Floats, defined: NDArray[np.bool_]) -> Floats:
    """1 - observed / expected disagreement, and NaN where that is not defined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(defined, 1 - observed / expected, np.nan)
