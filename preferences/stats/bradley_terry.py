"""The strengths of many models from preferences between pairs of them. Pure functions.

Bradley & Terry (1952, Biometrika 39(3/4)): P(i beats j) = 1 / (1 + exp(θ_j - θ_i)), by maximum likelihood, where a
preference p counts as p of a win and 1 - p of a loss, so a tie as half of each. All preferences count alike and at
once: their order says nothing, which is what Elo ratings get wrong (benchmarks/elo.py).

A model that never loses has no finite maximum (Ford 1957, Amer. Math. Monthly 64(8)). So each pair of models that met
is given one tie more. With two models this is log((wins + ½) / (losses + ½)), the estimate of the log-odds with the
least bias (Haldane 1956, Ann. Hum. Genet. 20; Anscombe 1956, Biometrika 43), and among hundreds of prompts it is hardly
seen. Then strengths exist wherever models are connected by a chain of comparisons; where they are not, nothing can be
said.

Intervals are about other prompts, with all that was said of a prompt drawn together: cluster-robust, and not by the
bootstrap, which covers too rarely with few prompts (0.93 of the time with 50: benchmarks/results/coverage.md).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, stdtrit

from preferences.stats.intervals import exact_mean

Floats = NDArray[np.float64]

LEVEL = 0.95
TIES_GIVEN = 1.0  # to each pair that met


def fit_strengths(
    prompts: Sequence[Any],
    candidates: Sequence[str],
    baselines: Sequence[str],
    preferences: ArrayLike,
    *,
    level: float = LEVEL,
) -> dict[str, dict[str, Any]]:
    """Strengths of models, best first, from rows (n,): is the candidate better than the baseline on a prompt (1 = yes)?

    Gives {model: {"strength", "standard_error", "interval", "win_rate", "win_rate_interval", "n"}}. Strengths are
    log-odds with mean 0; the win rate is the mean over the other models of the probability to beat them, by the
    model; n counts the prompts that it was judged on. With fewer than two prompts errors and intervals are None.

    The covariance is H⁻¹ (Σ_prompts s s') H⁻¹ with s a prompt's score and H the information (Liang & Zeger 1986,
    Biometrika 73(1)), times P / (P - 1); of each tie given its win and its loss count as prompts of their own.
    Strengths have Student's t with P - 1 degrees of freedom, win rates `intervals.exact_mean`.

    Raises ValueError for rows of different lengths, values outside [0, 1], a model against itself, and models that no
    chain of comparisons connects.
    """
    values = np.asarray(preferences, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not len(values) == len(prompts) == len(candidates) == len(baselines):
        raise ValueError("prompts, candidates, baselines and preferences are lists of one length, at least 1")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise ValueError("a preference is not a number in [0, 1]")
    models, numbers = np.unique(np.array([*candidates, *baselines], dtype=np.str_), return_inverse=True)
    first, second = numbers.reshape(2, -1)
    if (first == second).any():
        raise ValueError(f"{models[first[first == second][0]]} is compared with itself")
    names, prompt = np.unique(np.asarray(prompts), return_inverse=True)
    shape = (len(models), len(models))
    wins = np.zeros(shape)
    np.add.at(wins, (first, second), values)
    np.add.at(wins, (second, first), 1 - values)
    met = np.zeros(shape, dtype=bool)
    met[first, second] = met[second, first] = True
    _connected(met, models.tolist())
    wins += TIES_GIVEN / 2 * met
    theta = strengths(wins)
    rate = against_others(theta)
    chance = _chances(theta)
    residuals = values - chance[first, second]
    scores = np.zeros((len(names), len(models)))
    np.add.at(scores, (prompt, first), residuals)
    np.add.at(scores, (prompt, second), -residuals)
    error, rate_error = _errors(scores, wins, chance, met)
    judged = [len(np.unique(prompt[(first == index) | (second == index)])) for index in range(len(models))]
    result = {}
    for index in np.argsort(-theta, kind="stable"):
        reach = float(stdtrit(len(names) - 1, (1 + level) / 2)) * error[index] if len(names) > 1 else None
        result[str(models[index])] = {
            "strength": float(theta[index]),
            "standard_error": None if reach is None else float(error[index]),
            "interval": None if reach is None else [float(theta[index] - reach), float(theta[index] + reach)],
            "win_rate": float(rate[index]),
            "win_rate_interval": None
            if reach is None
            else exact_mean(float(rate[index]), float(rate_error[index]), len(names), level),
            "n": judged[index],
        }
    return result


def strengths(wins: Floats) -> Floats:
    """Wins (…, K, K), of row over column, whole or not -> strengths (…, K) of the greatest likelihood, mean 0.

    Newton's method with steps log(1 + r) / r, r the range of the full step, with which it converges from anywhere (Sun
    & Tran-Dinh 2019, Math. Programming 178, for generalised self-concordant functions with ν = 2). The maximum must
    exist: see above. The diagonal is not looked at.
    """
    count = wins.shape[-1]
    wins = wins * (1 - np.eye(count))
    games = wins + wins.swapaxes(-1, -2)
    theta = np.zeros(wins.shape[:-1])
    for _ in range(500):
        chance = _chances(theta)
        gradient = (wins - games * chance).sum(axis=-1)
        curvature = games * chance * chance.swapaxes(-1, -2)
        hessian = curvature.sum(axis=-1)[..., None] * np.eye(count) - curvature
        scale = np.maximum(hessian.max(axis=(-2, -1), keepdims=True), 1e-300)
        step = np.linalg.solve(hessian + scale / count, gradient[..., None])[..., 0]  # + scale / count: fixes the mean
        step -= step.mean(axis=-1, keepdims=True)
        size = np.ptp(step, axis=-1, keepdims=True)
        theta += step * np.where(size > 1e-9, np.log1p(size) / np.maximum(size, 1e-9), 1.0)
        if size.max(initial=0) < 1e-10:
            break
    return theta


def against_others(theta: Floats) -> Floats:
    """Strengths (…, K) -> the mean probability (…, K) of beating one of the others; 0.5 for a single model."""
    count = theta.shape[-1]
    chance = _chances(theta)
    return (chance.sum(axis=-1) - 0.5) / (count - 1) if count > 1 else np.full_like(theta, 0.5)


def _chances(theta: Floats) -> Floats:
    """Strengths (…, K) -> the probability (…, K, K) that the row beats the column; 0.5 on the diagonal."""
    return expit(theta[..., :, None] - theta[..., None, :])


def _laplacian(weights: Floats) -> Floats:
    """Σ_pairs weight (e_i - e_j)(e_i - e_j)' (K, K) of symmetric weights (K, K)."""
    return np.diag(weights.sum(axis=-1)) - weights


def _errors(scores: Floats, wins: Floats, chance: Floats, met: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Standard errors (K,) of strengths and of the win rate against the others, from the prompts' scores (P, K)."""
    prompts, count = scores.shape
    apart = scores - scores.mean(axis=0)
    spread = apart.T @ apart * prompts / max(prompts - 1, 1) + _laplacian(TIES_GIVEN * (chance**2 + chance.T**2) * met)
    slopes = chance * chance.T * (1 - np.eye(count))
    inverse = np.linalg.pinv(_laplacian((wins + wins.T) * slopes), hermitian=True)
    covariance = inverse @ spread @ inverse
    onto = _laplacian(slopes) / max(count - 1, 1)  # of the win rates, by the strengths
    return np.sqrt(np.diag(covariance)), np.sqrt(np.diag(onto @ covariance @ onto))


def _connected(met: NDArray[np.bool_], models: Sequence[str]) -> None:
    from scipy.sparse.csgraph import connected_components

    parts, part = connected_components(met, directed=False)
    if parts > 1:
        one = ", ".join(model for model, at in zip(models, part, strict=True) if at == 0)
        other = ", ".join(model for model, at in zip(models, part, strict=True) if at != 0)
        raise ValueError(f"no chain of comparisons connects {one} with {other}; strengths need one")
