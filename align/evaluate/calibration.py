"""How far a reward model's probabilities can be believed, and how far it goes by length. Pure functions on arrays.

A pair is a score difference d (first less second, in the run's own units), from which the model's probability that the
first is better is s(d) = 1 / (1 + e^-d) (Bradley and Terry 1952), and the raters' own probability y of the same, from
0 to 1. Nothing here changes when the two responses of a pair swap places (d to -d, y to 1 - y).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, xlogy

Floats = NDArray[np.float64]

BINS = 10
_SCALES = (1e-3, 1e3)  # between which the best scale is looked for


def log_losses(difference: ArrayLike, preference: ArrayLike) -> Floats:
    """-[y log s(d) + (1 - y) log s(-d)] of each pair, in nats: (n,), (n,) -> (n,). A coin has log 2 = 0.693."""
    d, y = np.asarray(difference, dtype=np.float64), np.asarray(preference, dtype=np.float64)
    losses: Floats = y * np.logaddexp(0, -d) + (1 - y) * np.logaddexp(0, d)
    return losses


def entropies(preference: ArrayLike) -> Floats:
    """-[y log y + (1 - y) log(1 - y)] in nats, (n,): the least log loss that any model can have on these pairs."""
    y = np.asarray(preference, dtype=np.float64)
    found: Floats = -(xlogy(y, y) + xlogy(1 - y, 1 - y))
    return found


def reliability(difference: ArrayLike, preference: ArrayLike, bins: int = BINS) -> dict[str, Any]:
    """Is the model right as often as it says? {"ece", "bins": [{"low", "high", "n", "said", "seen"}]}, no empty bins.

    Each pair is read from the side that the model favours: it says c = max(s(d), s(-d)) in [½, 1], and what is seen is
    the raters' probability of that side (½ where d = 0). Pairs are sorted by c into `bins` equal ranges of [½, 1]
    (the upper end belongs to the range), and ece = Σ n_b / n |mean seen - mean said| (Naeini et al., AAAI 2015; Guo et
    al., ICML 2017, eq. 3).
    """
    d, y = np.asarray(difference, dtype=np.float64), np.asarray(preference, dtype=np.float64)
    said = expit(np.abs(d))
    seen = np.where(d > 0, y, np.where(d < 0, 1 - y, 0.5))
    place = np.clip(np.ceil((said - 0.5) * 2 * bins - 1e-9).astype(int) - 1, 0, bins - 1)
    rows = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            ends = {"low": 0.5 + number / (2 * bins), "high": 0.5 + (number + 1) / (2 * bins)}
            means = {"said": float(said[inside].mean()), "seen": float(seen[inside].mean())}
            rows.append({**ends, "n": int(inside.sum()), **means})
    ece = sum(row["n"] * abs(row["seen"] - row["said"]) for row in rows) / len(d)
    return {"ece": float(ece), "bins": rows}


def best_scale(difference: ArrayLike, preference: ArrayLike) -> float | None:
    """The k > 0 for which s(k d) has the least log loss (temperature scaling, Guo et al. 2017: k is 1/T), or None.

    Below 1 the model is too sure of itself, above 1 not sure enough. None where no k in [0.001, 1000] is best: where
    the scores say nothing of the preference, or order every pair rightly.
    """
    d = np.asarray(difference, dtype=np.float64)
    low, high = np.log(_SCALES)
    found = minimize_scalar(
        lambda k: float(log_losses(np.exp(k) * d, preference).mean()), bounds=(low, high), method="bounded"
    )
    inside = low + 0.1 < found.x < high - 0.1
    return float(np.exp(found.x)) if inside else None


def correlation(x: ArrayLike, y: ArrayLike) -> float | None:
    """Σ xy / √(Σ x² Σ y²) of differences between the responses of pairs (n,), (n,); None where one is 0 throughout.

    It is Pearson's correlation over the pairs in both orders, so which response stands first does not matter.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    below = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / below) if below > 0 else None


def partial_correlation(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> float | None:
    """The same of what `given` leaves of x and y: (r_xy - r_xz r_yz) / √((1 - r_xz²)(1 - r_yz²)); None if undefined."""
    xy, xz, yz = correlation(x, y), correlation(x, given), correlation(y, given)
    if xy is None:
        return None
    if xz is None or yz is None:
        return xy
    below = (1 - xz**2) * (1 - yz**2)
    return float((xy - xz * yz) / np.sqrt(below)) if below > 1e-12 else None
