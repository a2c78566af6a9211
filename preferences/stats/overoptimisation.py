"""How far a policy may go for a reward before a better judge, the gold one, likes it less. Pure functions on arrays.

Gao, Schulman & Hilton (2023), "Scaling Laws for Reward Model Overoptimization" (arXiv 2210.10760): with d = √KL to the
base in √nats, and rewards R relative to the base's (R(0) = 0),

    R_bon(d) = d (α - β d)         best of n of the base            peak at d* = α / 2β
    R_rl(d)  = d (α - β log d)     checkpoints of a trained policy  peak at d* = exp(α / β - 1)

Rewards come as (points, prompts): what hangs together is a prompt, so intervals draw prompts.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from preferences.stats.bootstrap import draws

Floats = NDArray[np.float64]
Form = Literal["bon", "rl"]

LEVEL, RESAMPLES = 0.95, 4_000
LEAST = 3  # points off the base that a fit needs: two parameters, and one to go wrong by


def best_of_kl(n: int) -> float:
    """log n - (n - 1) / n in nats: the KL of best-of-n to what it draws from (Stiennon et al. 2020, arXiv 2009.01325).

    It is exact where no two responses are alike in score, and an upper bound else (Beirami et al. 2024, arXiv
    2401.01879).
    """
    if n < 1:
        raise ValueError(f"best of {n}: n is at least 1")
    return float(np.log(n) - (n - 1) / n)


def best_of_weights(n: int, samples: int) -> Floats:
    """(N,): the probability that the i-th lowest of N = `samples` responses is the best of n drawn without repetition.

    C(i - 1, n - 1) / C(N, n). With them the expectation of best-of-n is estimated without bias from one set of N ≥ n
    samples (Nakano et al. 2021, WebGPT, arXiv 2112.09332).
    """
    if not 1 <= n <= samples:
        raise ValueError(f"best of {n} from {samples} samples: n is between 1 and the number of samples")
    place = np.arange(1, samples + 1, dtype=np.float64)
    inside = place >= n
    weights = np.zeros(samples)
    weights[inside] = np.exp(_log_choose(place[inside] - 1, n - 1) - _log_choose(np.array(float(samples)), n))
    found: Floats = weights / weights.sum()  # 1 but for rounding
    return found


def best_of(scores: ArrayLike, values: ArrayLike, ns: Sequence[int]) -> Floats:
    """(len(ns), prompts): the expected value of the response that best-of-n by `scores` picks, for each prompt.

    scores, values: (prompts, N), of the same responses; `values` may be the scores themselves, or another judge's.
    Which of equal scores is picked is left to chance: each of them counts with their mean value.
    """
    s, v = np.asarray(scores, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if s.ndim != 2 or s.shape != v.shape or not s.size:
        raise ValueError(f"scores of shape {s.shape} and values of shape {v.shape}; both are (prompts, samples)")
    order = np.argsort(s, axis=1, kind="stable")
    ordered = np.take_along_axis(v, order, axis=1)
    ranked = np.take_along_axis(s, order, axis=1)
    for row, tied in zip(ordered, ranked, strict=True):
        _, place, size = np.unique(tied, return_inverse=True, return_counts=True)
        row[:] = (np.bincount(place, weights=row) / size)[place]
    found: Floats = np.stack([ordered @ best_of_weights(n, s.shape[1]) for n in ns])
    return found


def curve(form: Form, distance: ArrayLike, alpha: ArrayLike, beta: ArrayLike) -> Floats:
    """R(d) in the reward's unit, elementwise; 0 at d = 0 in both forms."""
    d = np.asarray(distance, dtype=np.float64)
    found: Floats = d * np.asarray(alpha) - np.asarray(beta) * _second(form, d)
    return found


def peak_of(form: Form, alpha: ArrayLike, beta: ArrayLike) -> Floats:
    """d* at which R is highest, elementwise; infinity where R does not fall again (β ≤ 0, for best-of-n also α ≤ 0)."""
    a, b = np.asarray(alpha, dtype=np.float64), np.asarray(beta, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = a / (2 * b) if form == "bon" else np.exp(a / b - 1)
    falls = (b > 0) & (a > 0) if form == "bon" else b > 0
    return np.where(falls, found, np.inf)


def fit(form: Form, distance: ArrayLike, reward: ArrayLike, weight: ArrayLike) -> tuple[Floats, Floats]:
    """(α, β) by weighted least squares, in which R is linear; NaN where the points can't tell them.

    distance, reward, weight: (…, points); a weight is one over a squared standard error, and 0 leaves a point out.
    """
    d, r = np.asarray(distance, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    w = np.where(d > 0, np.asarray(weight, dtype=np.float64), 0.0)
    x, y = d, -_second(form, d)
    xx, xy, yy = ((w * left * right).sum(-1) for left, right in ((x, x), (x, y), (y, y)))
    xr, yr = (w * x * r).sum(-1), (w * y * r).sum(-1)
    below = xx * yy - xy**2
    with np.errstate(divide="ignore", invalid="ignore"):
        told = below > 1e-12 * xx * yy
        alpha = np.where(told, (yy * xr - xy * yr) / below, np.nan)
        beta = np.where(told, (xx * yr - xy * xr) / below, np.nan)
    return alpha, beta


class Shown(NamedTuple):
    """Which points can be told apart. above[i, j]: that i's mean is above j's is shown, all pairs taken together."""

    above: NDArray[np.bool_]  # (points, points)
    critical: float  # a difference of so many standard errors shows it


def told_apart(rewards: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0) -> Shown:
    """Compare all points with one another on the same prompts; that any pair is wrongly told apart has 1 - `level`.

    rewards: (points, prompts). Paired differences over their standard errors, against the `level` quantile of the
    largest such |t| among all pairs in a studentised bootstrap over prompts (Romano & Wolf 2005, Econometrica 73(4)).
    So looking for the best point, or for a fall anywhere, needs no further correction.
    """
    x = np.asarray(rewards, dtype=np.float64)
    points, prompts = x.shape
    above = np.zeros((points, points), dtype=bool)
    first, second = np.triu_indices(points, k=1)
    difference = x[first] - x[second]
    differs = difference.any(axis=1)
    first, second, difference = first[differs], second[differs], difference[differs]
    if prompts < 2 or not len(first):
        return Shown(above, float("inf"))
    mean, error = difference.mean(axis=1), difference.std(axis=1, ddof=1) / np.sqrt(prompts)
    largest = [np.zeros(0)]
    for drawn in draws(prompts, resamples, seed, len(first)):
        means = difference @ drawn / prompts
        spread = np.sqrt(np.maximum((difference**2) @ drawn / prompts - means**2, 0) / (prompts - 1))
        with np.errstate(divide="ignore", invalid="ignore"):  # a draw of equal differences says nothing of their spread
            t = np.where(spread > 1e-9 * np.abs(mean).max(), np.abs(means - mean[:, None]) / spread, 0.0)
        largest.append(t.max(axis=0))
    critical = float(np.quantile(np.concatenate(largest), level))
    # all differences the same: then it is the sign test, two-sided, over all pairs (Bonferroni)
    constant = error <= 1e-9 * np.abs(mean)
    sure = 2.0 ** (1 - prompts) * len(first) < 1 - level
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.where(constant, sure, np.abs(mean) / error > critical)
    above[first, second], above[second, first] = shown & (mean > 0), shown & (mean < 0)
    return Shown(above, critical)


def fall(distance: ArrayLike, above: NDArray[np.bool_]) -> tuple[int, int] | None:
    """(from, to): a point off the base, and the farthest one behind it that is shown to be below it; None without.

    distance: (points,), 0 for the base. Of several points to fall from it is the nearest.
    """
    d = np.asarray(distance, dtype=np.float64)
    order = np.argsort(d, kind="stable")
    for i in order:
        behind = [j for j in order if d[j] > d[i] > 0 and above[i, j]]
        if behind:
            return int(i), int(behind[-1])
    return None


def nearest_unbeaten(distance: ArrayLike, above: NDArray[np.bool_]) -> int:
    """The point nearest to the base that no other one is shown to be better than: what is farther brings no more that
    could be shown, and costs more. distance: (points,).
    """
    d = np.asarray(distance, dtype=np.float64)
    unbeaten = np.flatnonzero(~above.any(axis=0))
    return int(unbeaten[np.argmin(d[unbeaten])])


def fit_curve(
    form: Form,
    kl: ArrayLike,
    rewards: ArrayLike,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any] | None:
    """The form through measured points, by least squares weighted by standard errors, with intervals over prompts.

    Where the points lie farther from the curve than their errors explain, the form itself is off, and the intervals of
    α, β and the peak are wider by `misfit` = max(1, √(χ² / (points - 2))) (Birge 1932; the Particle Data Group's scale
    factor).

    kl: (points, prompts) where it was measured on samples, or (points,) where it is known, in nats. rewards: (points,
    prompts), less the base's on the same prompt. Points at KL 0 say nothing of α and β. Returns {"alpha",
    "alpha_interval", "beta", "beta_interval", "r2", "misfit", "points", "peak"}, or None with fewer than three points
    off the base, or one prompt. `peak` is {"sqrt_kl", "interval", "reward"}, or None. It is one only if d* and its
    whole interval lie among the distances of the points, and if a point behind d* is shown to be below one before it
    (see told_apart): a form alone falls somewhere, whether or not the reward does.
    """
    values, r = np.asarray(kl, dtype=np.float64), np.asarray(rewards, dtype=np.float64)
    known = values.ndim == 1
    at = np.sqrt(np.maximum(values if known else values.mean(axis=1), 0))
    kept = at > 0
    values, r, at = values[kept], r[kept], at[kept]
    points, prompts = r.shape
    if len(set(at.tolist())) < LEAST or prompts < 2:
        return None
    mean, error = r.mean(axis=1), r.std(axis=1, ddof=1) / np.sqrt(prompts)
    weight = 1 / np.maximum(error, 1e-3 * error.max() or 1.0) ** 2
    alpha, beta = fit(form, at, mean, weight)
    drawn_alpha, drawn_beta, strayed = [], [], []
    for drawn in draws(prompts, resamples, seed, points):
        means = (r @ drawn / prompts).T
        distance = at if known else np.sqrt(np.maximum((values @ drawn / prompts).T, 0))
        a, b = fit(form, distance, means, weight)
        drawn_alpha.append(a)
        drawn_beta.append(b)
        strayed.append(means - curve(form, distance, alpha, beta))
    alphas, betas = np.concatenate(drawn_alpha), np.concatenate(drawn_beta)
    told = ~np.isnan(alphas)
    if np.isnan(alpha) or not told.any():
        return None
    left = weight * (mean - curve(form, at, alpha, beta)) ** 2
    spread = np.concatenate(strayed).var(axis=0)  # of reward and distance together
    squares = np.divide(left / weight, spread, out=np.zeros_like(spread), where=spread > 0)
    misfit = max(1.0, float(np.sqrt(squares.sum() / (points - 2))))
    alphas, betas = alpha + misfit * (alphas[told] - alpha), beta + misfit * (betas[told] - beta)
    ends = ((1 - level) / 2, (1 + level) / 2)
    around = weight * (mean - np.average(mean, weights=weight)) ** 2
    found = {
        "alpha": float(alpha),
        "alpha_interval": np.quantile(alphas, ends).tolist(),
        "beta": float(beta),
        "beta_interval": np.quantile(betas, ends).tolist(),
        "r2": float(1 - left.sum() / around.sum()) if around.sum() > 0 else None,
        "misfit": misfit,
        "points": points,
        "peak": None,
    }
    place = float(peak_of(form, alpha, beta))
    low, high = np.quantile(peak_of(form, alphas, betas), ends, method="nearest")  # infinity has no mean with a number
    inside = at.min() <= low <= place <= high <= at.max()
    shown = told_apart(r, level=level, resamples=resamples, seed=seed).above
    down = inside and any(shown[i, j] for i in range(points) for j in range(points) if at[i] < place < at[j])
    if down:
        height = float(curve(form, place, alpha, beta))
        found["peak"] = {"sqrt_kl": place, "interval": [float(low), float(high)], "reward": height}
    return found


def _second(form: Form, d: Floats) -> Floats:
    """What β takes off: d² or d log d."""
    if form == "bon":
        return d**2
    found: Floats = d * np.log(np.where(d > 0, d, 1.0))
    return found


def _log_choose(n: Floats, k: int) -> Floats:
    found: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found
