"""The strengths of many models from preferences between pairs of them. Pure functions.

Bradley & Terry (1952, Biometrika 39(3/4)): P(i beats j) = 1 / (1 + exp(θ_j - θ_i)), by maximum likelihood, where a
preference p counts as p of a win and 1 - p of a loss, so a tie as half of each. All preferences count alike and at
once: their order says nothing, which is what Elo ratings get wrong (benchmarks/elo.py).

A model that never loses has no finite maximum (Ford 1957, Amer. Math. Monthly 64(8)). So each pair of models that met
is given one tie more. With two models this is log((wins + ½) / (losses + ½)), the estimate of the log-odds with the
least bias (Haldane 1956, Ann. Hum. Genet. 20; Anscombe 1956, Biometrika 43), and among hundreds of prompts it is hardly
seen. Then strengths exist wherever models are connected by a chain of comparisons; where they are not, nothing can be
said.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from preferences.stats.bootstrap import Part, estimate

Floats = NDArray[np.float64]

LEVEL, RESAMPLES = 0.95, 1000
TIES_GIVEN = 1.0  # to each pair that met


def fit_strengths(
    prompts: Sequence[Any],
    candidates: Sequence[str],
    baselines: Sequence[str],
    preferences: ArrayLike,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Strength of each model, best first, from rows (n,): to this prompt, is the candidate better than the baseline (1
    = yes)?

    Gives {model: {"strength", "interval", "win_rate", "win_rate_interval", "n"}}: strengths are log-odds with mean 0;
    the win rate is the mean over the other models of the model's probability to beat them; n counts the prompts that it
    was judged on. Intervals are percentiles of a bootstrap over prompts, all of a prompt's rows together; None with
    fewer than two prompts. Raises ValueError for rows of different lengths, values outside [0, 1], a model against
    itself, and models that no chain of comparisons connects.
    """
    from scipy.sparse import csr_array

    values = np.asarray(preferences, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not len(values) == len(prompts) == len(candidates) == len(baselines):
        raise ValueError("prompts, candidates, baselines and preferences are lists of one length, at least 1")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise ValueError("a preference is not a number in [0, 1]")
    models = sorted({*candidates, *baselines})
    place = {model: index for index, model in enumerate(models)}
    first = np.array([place[model] for model in candidates])
    second = np.array([place[model] for model in baselines])
    if (first == second).any():
        raise ValueError(f"{models[first[first == second][0]]} is compared with itself")
    names, prompt = np.unique(np.asarray(prompts), return_inverse=True)
    count = len(models)
    met = np.zeros((count, count), dtype=bool)
    met[first, second] = met[second, first] = True
    _connected(met, models)
    cells = np.concatenate([first * count + second, second * count + first])
    wins = csr_array(
        (np.concatenate([values, 1 - values]), (np.tile(prompt, 2), cells)), shape=(len(names), count * count)
    )

    def of(totals: Floats) -> dict[str, Floats]:
        theta = strengths(totals.reshape(*totals.shape[:-1], count, count) + TIES_GIVEN / 2 * met)
        return {"strength": theta, "win_rate": against_others(theta)}

    (found,) = estimate([Part(wins, of)], resamples=resamples, seed=seed, level=level)
    judged = [len(set(prompt[(first == index) | (second == index)])) for index in range(count)]
    result = {}
    for index in np.argsort(-found["strength"].value, kind="stable"):
        strength, rate = ([float(part[index]) for part in found[name]] for name in ("strength", "win_rate"))
        result[models[index]] = {
            "strength": strength[0],
            "interval": strength[1:] if len(names) > 1 else None,
            "win_rate": rate[0],
            "win_rate_interval": rate[1:] if len(names) > 1 else None,
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
        chance = 1 / (1 + np.exp(theta[..., None, :] - theta[..., :, None]))
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
    chance = 1 / (1 + np.exp(theta[..., None, :] - theta[..., :, None]))
    return (chance.sum(axis=-1) - 0.5) / (count - 1) if count > 1 else np.full_like(theta, 0.5)


def _connected(met: NDArray[np.bool_], models: Sequence[str]) -> None:
    from scipy.sparse.csgraph import connected_components

    parts, part = connected_components(met, directed=False)
    if parts > 1:
        one = ", ".join(model for model, at in zip(models, part, strict=True) if at == 0)
        other = ", ".join(model for model, at in zip(models, part, strict=True) if at != 0)
        raise ValueError(f"no chain of comparisons connects {one} with {other}; strengths need one")
