"""The win rate that is left when both responses are equally long (after AlpacaEval 2). Pure functions on arrays."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

PENALTIES = 10.0 ** np.linspace(4, -4, 10)  # scikit-learn's default grid of 1 / C, the strongest first
FOLDS = 5
SEEN = (
    0.05  # the least share of prompts on which each model is not the longer one, to know what equal length would bring
)


def length_controlled(
    preferences: ArrayLike, length_differences: ArrayLike, difficulty: ArrayLike | None = None
) -> tuple[float, float | None] | None:
    """The length-controlled win rate and its standard error, of preferences (n,) in [0, 1], 1 = candidate better.

    A logistic model of the preference x on the difference d of lengths (n,), candidate's minus baseline's, and the
    `difficulty` (n,) of the prompts where given (Dubois et al. 2024, "Length-Controlled AlpacaEval", arXiv 2404.04475,
    section 3):

        P(candidate better) = σ(a + b tanh(d / s) + c · difficulty),   s² = Σ (d - d̄)² / (n - 1)

    by the greatest likelihood (x of a win, 1 - x of a loss) less λ (b² + c²) / 2, where λ is the one of `PENALTIES`
    with the smallest log loss over five folds; difficulty is in units of its standard deviation. The rate is the mean
    over prompts of σ(a + c · difficulty): d is set to 0. With λ → ∞ it is the win rate itself.

    The standard error is that of the mean of its influence values over the prompts (delta method): it says how a, b and
    c would differ with other prompts, which AlpacaEval's own leaves out. It is that of weights without a penalty, at
    those found: λ draws b to 0 just where length and preference can't be told apart, and an error that takes λ's word
    for it is too small. It is None where the data say nothing of equal length: where one of the models is the longer
    one on more than 1 - `SEEN` of the prompts, or on all but one; and where all preferences are equal.

    None where nothing can be said: fewer than five prompts, or lengths that all differ by the same, other than 0.
    Raises ValueError for lists of different lengths, and for what is no number.
    """
    y = np.asarray(preferences, dtype=np.float64)
    columns = [np.asarray(one, dtype=np.float64) for one in (length_differences, difficulty) if one is not None]
    if y.ndim != 1 or any(one.shape != y.shape for one in columns):
        raise ValueError("preferences, length differences and difficulty are lists of one length")
    if not all(np.isfinite(one).all() for one in (y, *columns)) or ((y < 0) | (y > 1)).any():
        raise ValueError("a preference outside [0, 1], or a length or difficulty that is no number")
    if len(y) < FOLDS:
        return None
    difference, spread = columns[0], float(columns[0].std(ddof=1))
    if spread == 0 and difference[0] != 0:
        return None
    if np.ptp(y) < 1e-12:
        return float(y[0]), None
    features = [np.ones_like(y)]
    if spread > 0:
        features.append(np.tanh(difference / spread))
    for hard in columns[1:]:
        if np.ptp(hard) > 0:
            features.append((hard - hard.mean()) / hard.std(ddof=1))
    x = np.stack(features, axis=1)
    # What a prompt says whichever model is called the candidate decides on its fold; so neither that nor the order of
    # prompts changes anything.
    side = np.sign(np.round((y - 0.5).sum(), 12)) or np.sign((y - 0.5) @ difference)
    sizes = np.round([side * difference, (y - 0.5) * difference, np.abs(difference), np.abs(y - 0.5)], 12)
    ranks = np.lexsort((sizes[0], *columns[1:], *sizes[1:]))
    fold = np.empty(len(y), dtype=np.int64)
    fold[ranks] = np.arange(len(y)) % FOLDS
    penalty = PENALTIES[0]
    if x.shape[1] > 1:
        losses = [_losses(x[fold != one], y[fold != one], x[fold == one], y[fold == one]) for one in range(FOLDS)]
        penalty = PENALTIES[int(np.argmin(np.sum(losses, axis=0)))]
    rate, error = _rate(x, y, penalty, 1 if spread > 0 else None)
    unseen = min((difference <= 0).sum(), (difference >= 0).sum()) < max(2, SEEN * len(y))
    return rate, None if unseen else error


def _losses(x: Floats, y: Floats, held_x: Floats, held_y: Floats) -> list[float]:
    """The log loss on what is held out, for each of `PENALTIES`."""
    losses, weights = [], None
    for penalty in PENALTIES:
        weights = fit_logistic(x, y, penalty, weights)
        scores = held_x @ weights
        losses.append(float((np.logaddexp(0, scores) - held_y * scores).sum()))
    return losses


def fit_logistic(x: Floats, y: Floats, penalty: float, start: Floats | None = None) -> Floats:
    """Weights w (k,) that minimise Σ log(1 + exp(x w)) - y x w + penalty Σ_{j>0} w_j² / 2, by Newton's method.

    x (n, k) with ones in its first column, which is not penalised, y (n,) in [0, 1]. Where y are all 0, or all 1, the
    first weight would grow forever: it stops where scores reach 30.
    """
    penalties = np.full(x.shape[1], penalty)
    penalties[0] = 0.0
    weights = np.zeros(x.shape[1]) if start is None else start

    def objective(w: Floats) -> float:
        scores = x @ w
        return float((np.logaddexp(0, scores) - y * scores).sum() + (penalties * w * w).sum() / 2)

    for _ in range(100):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (chance - y) + penalties * weights
        hessian = (x * (chance * (1 - chance))[:, None]).T @ x + np.diag(penalties)
        step = np.linalg.solve(hessian + 1e-12 * np.trace(hessian) * np.eye(len(weights)), gradient)
        while np.abs(step).max() > 1 and objective(weights - step) > objective(weights):
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-10 or abs(weights[0]) > 30:
            break
    return weights


def _rate(x: Floats, y: Floats, penalty: float, length: int | None) -> tuple[float, float]:
    """The mean chance with the column `length` of x at 0, and its standard error."""
    n, k = x.shape
    weights = fit_logistic(x, y, penalty)
    even = x.copy()
    if length is not None:
        even[:, length] = 0.0
    chance, level = (1 / (1 + np.exp(-(one @ weights))) for one in (x, even))
    rate = float(level.mean())
    information = (x * (chance * (1 - chance))[:, None]).T @ x
    information += 1e-9 * np.trace(information) * np.eye(k)
    gradient = (even * (level * (1 - level))[:, None]).mean(axis=0)
    scores = x * (y - chance)[:, None]
    influence = level - rate + n * ((scores - scores.mean(axis=0)) @ np.linalg.solve(information, gradient))
    return rate, float(np.sqrt((influence**2).sum() / (n * max(1, n - k))))
