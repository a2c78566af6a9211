"""How well scores order things: NDCG, MRR and ROC-AUC. Pure functions on arrays; nothing here knows models or files.

Where scores are equal, the order between them is left to chance and the expectation counts, as in scikit-learn's
`ndcg_score`. A scorer that says the same of everything so gets what chance gets, and nothing for the order in the file.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, gammaln, logit
from scipy.stats import norm, rankdata

from preferences.stats.winrate import LEVEL, accuracy, equal_values_interval

Floats = NDArray[np.float64]


def ndcg(relevance: ArrayLike, scores: ArrayLike, k: int | None = None) -> float | None:
    """Normalised discounted cumulative gain of one ranking, in [0, 1]; None where all relevances are 0.

    relevance: (n,) of 0 or more, the gain itself (not 2^gain - 1); scores: (n,), higher is first. DCG = Σ gain /
    log2(1 + place) over the first k places, divided by that of the best order (Järvelin & Kekäläinen 2002). Equal
    scores share the mean of their gains (McSherry & Najork 2008, ECIR).
    """
    gain, s = _ranking(relevance, scores)
    if gain.min() < 0:
        raise ValueError(f"a relevance of {gain.min():g}; gains are 0 or more")
    discount = 1 / np.log2(np.arange(2, len(gain) + 2))
    if k is not None:
        discount[k:] = 0
    best = float(np.sort(gain)[::-1] @ discount)
    if best == 0:
        return None
    _, place, size = np.unique(-s, return_inverse=True, return_counts=True)
    shared = (np.bincount(place, weights=gain) / size)[place]
    return float(shared[np.argsort(-s, kind="stable")] @ discount) / best


def reciprocal_rank(relevant: ArrayLike, scores: ArrayLike) -> float | None:
    """1 / the place of the first relevant one by scores, its expectation where scores are equal; None without any.

    relevant: (n,) of truth values; scores: (n,), higher is first. Its mean over rankings is MRR (Voorhees
    1999, TREC-8).
    """
    wanted, s = _ranking(relevant, scores)
    if not (wanted > 0).any():
        return None
    top = s[wanted > 0].max()
    before, tied = int((s > top).sum()), int((s == top).sum())
    good = int((wanted[s == top] > 0).sum())
    # the first of `good` among `tied` in random order stands at j with C(tied - j, good - 1) / C(tied, good)
    j = np.arange(1, tied - good + 2)
    chance = np.exp(_log_choose(tied - j, good - 1) - _log_choose(np.array(tied), good))
    return float((chance / (before + j)).sum())


def gains(ranks: ArrayLike) -> Floats:
    """The relevance of each response of a ranking (1 = best, equal = tie): how many others it beats, a tie counting ½.

    (n,) -> (n,), from 0 for the worst alone to n - 1 for the best alone.
    """
    found: Floats = len(np.asarray(ranks)) - rankdata(ranks, method="average")
    return found


def rankings(
    ranks: Sequence[Sequence[int]], scores: Sequence[Sequence[float]], groups: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """NDCG and MRR over rankings by people: {"ndcg", "mrr", "chance": {"ndcg", "mrr"}, "rankings"}; None without any.

    One entry a ranking: ranks (1 = best, equal = tie) and scores of its responses. The gains of NDCG are those of
    `gains`; for MRR all that tie for best are relevant. Rankings in which everything ties say nothing, and are left
    out. `chance` is what equal scores get: with two responses that is far above ½. Intervals draw whole groups.
    """
    kept = [number for number, row in enumerate(ranks) if len(set(row)) > 1]
    if not kept:
        return None
    found: dict[str, list[float]] = {"ndcg": [], "mrr": []}
    chance: dict[str, list[float]] = {"ndcg": [], "mrr": []}
    for number in kept:
        gain, best = gains(ranks[number]), np.asarray(ranks[number]) == min(ranks[number])
        for values, by in ((found, scores[number]), (chance, [0.0] * len(gain))):
            values["ndcg"].append(float(ndcg(gain, by) or 0.0))
            values["mrr"].append(float(reciprocal_rank(best, by) or 0.0))
    of = [groups[number] for number in kept] if groups is not None else None
    means = {name: _mean(values, of) for name, values in found.items()}
    return {**means, "chance": {name: float(np.mean(values)) for name, values in chance.items()}, "rankings": len(kept)}


def roc_auc(
    scores: ArrayLike, positive: ArrayLike, clusters: ArrayLike | None = None, *, level: float = LEVEL
) -> dict[str, Any] | None:
    """The chance that a positive one scores above a negative one, ties as half: {"mean", "interval", "standard_error",
    "n", "positives"}; None where one of the two kinds is missing.

    scores: (n,); positive: (n,) of truth values. Without clusters the standard error is DeLong's (1988, Biometrics 44);
    what hangs together (the responses to a prompt) is one cluster, and then it is Obuchowski's (1997, Biometrics 53),
    which with clusters of one is the same. The interval is normal on the logit scale, so it stays within [0, 1] (Qin &
    Hotilovac 2008); where the AUC is 0 or 1, it is `equal_values_interval` over the clusters.
    """
    y, s = _ranking(np.asarray(positive, dtype=bool), scores)
    hit, miss = s[y > 0], s[y == 0]
    m, n = len(hit), len(miss)
    if not m or not n:
        return None
    # how many of the other kind each one stands on the right side of, from its rank among all and among its own
    every = rankdata(np.concatenate([hit, miss]))
    of_hit = (every[:m] - rankdata(hit)) / n
    of_miss = 1 - (every[m:] - rankdata(miss)) / m
    auc = float(of_hit.mean())
    names = np.arange(len(s)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    count = int(names.max()) + 1
    left = np.bincount(names[y > 0], weights=of_hit - auc, minlength=count)
    right = np.bincount(names[y == 0], weights=of_miss - auc, minlength=count)
    with_hit, with_miss = len(set(names[y > 0].tolist())), len(set(names[y == 0].tolist()))
    error = None
    if min(with_hit, with_miss) > 1:
        variance = with_hit / (with_hit - 1) * (left**2).sum() / m**2
        variance += with_miss / (with_miss - 1) * (right**2).sum() / n**2
        variance += 2 * count / (count - 1) * (left * right).sum() / (m * n)
        error = float(np.sqrt(max(variance, 0.0)))
    interval: list[float] | None = None
    if auc in (0.0, 1.0):
        interval = equal_values_interval(auc, min(with_hit, with_miss), level)
    elif error is not None:
        half = norm.ppf((1 + level) / 2) * error / (auc * (1 - auc))
        interval = [float(expit(logit(auc) - half)), float(expit(logit(auc) + half))]
    return {"mean": auc, "interval": interval, "standard_error": error, "n": len(s), "positives": m}


def _mean(values: Sequence[float], groups: Sequence[str] | None) -> dict[str, Any]:
    found = accuracy(np.clip(values, 0, 1), groups)
    return {"mean": found["accuracy"], **{key: found[key] for key in ("interval", "n", "standard_error")}}


def _ranking(first: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    a, s = np.asarray(first, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if a.ndim != 1 or a.shape != s.shape or not len(a):
        raise ValueError(f"shapes {a.shape} and {s.shape}; each thing needs a score")
    if not np.isfinite(s).all():
        raise ValueError("a score is no number")
    return a, s


def _log_choose(n: NDArray[np.int64], k: int) -> Floats:
    found: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found
