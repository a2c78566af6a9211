"""What a reward model is worth on pairs that it did not see, as numbers. Pure functions on arrays.

Arrays are over pairs (n,): `difference` is the score of the first response less that of the second, in the run's own
units; `preference` the raters' probability that the first is better; `longer` is log of the ratio of their lengths in
characters, first to second. Pairs of one `groups` entry hang together, and intervals draw whole groups.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.evaluate.calibration import (
    best_scale,
    correlation,
    entropies,
    log_losses,
    partial_correlation,
    reliability,
)
from preferences.stats.agreement import pair_values
from preferences.stats.ranking import rankings, roc_auc
from preferences.stats.winrate import accuracy, paired_difference

Floats = NDArray[np.float64]
Names = NDArray[np.str_]

SURE = (0.5, 0.65, 0.8, 0.95, 1.0)  # edges of how united raters were
STRENGTHS = {"slightly": (0.0, 1.5), "clearly": (1.5, 2.5), "much": (2.5, 3.0)}  # mean sizes, the upper end excluded
_FEW = 2_000  # resamples of the many small tables


def rightness(difference: ArrayLike, preference: ArrayLike) -> Floats:
    """(n,): 1 where the model sides with the raters, 0 where against them, ½ where its scores are equal.

    Meant for pairs with a winner; where the raters tie (½) it is ½ as well.
    """
    found: Floats = (1 + np.sign(np.asarray(difference)) * np.sign(np.asarray(preference) - 0.5)) / 2
    return found


def accuracies(difference: Floats, preference: Floats, longer: Floats, groups: Names) -> dict[str, Any]:
    """Of pairs with a winner: {"model", "longer_wins", "difference"}, the last paired over the same pairs."""
    model, length = rightness(difference, preference), rightness(longer, preference)
    return {
        "model": accuracy(model, groups),
        "longer_wins": accuracy(length, groups),
        "difference": paired_difference(model, length, groups),
    }


def by_tag(right: Floats, tags: Sequence[Sequence[str]], groups: Names) -> dict[str, dict[str, Any]]:
    """The accuracy on the pairs of each tag, the most frequent first."""
    rows: dict[str, list[int]] = {}
    for number, names in enumerate(tags):
        for name in dict.fromkeys(names):
            rows.setdefault(name, []).append(number)
    order = sorted(rows, key=lambda name: (-len(rows[name]), name))
    return {name: accuracy(right[rows[name]], groups[rows[name]], resamples=_FEW) for name in order}


def by_length(right: Floats, characters: ArrayLike, longer_right: Floats, groups: Names) -> list[dict[str, Any]]:
    """Accuracy of the model and of "longer wins" in four parts of the pairs, by the mean length of the two responses.

    characters: (n, 2). Equal lengths stay in one part, so there may be fewer than four.
    """
    mean = np.asarray(characters, dtype=np.float64).mean(axis=1)
    edges = np.unique(np.quantile(mean, [0, 0.25, 0.5, 0.75, 1]))
    if len(edges) == 1:
        edges = np.array([edges[0], edges[0]])
    place = np.clip(np.searchsorted(edges, mean, side="left") - 1, 0, len(edges) - 2)
    rows = []
    for number in range(len(edges) - 1):
        inside = place == number
        if inside.any():
            rows.append(
                {
                    "low": float(mean[inside].min()),
                    "high": float(mean[inside].max()),
                    "model": accuracy(right[inside], groups[inside], resamples=_FEW),
                    "longer_wins": accuracy(longer_right[inside], groups[inside], resamples=_FEW),
                }
            )
    return rows


def length_facts(difference: Floats, preference: Floats, longer: Floats, groups: Names) -> dict[str, Any] | None:
    """Does it go by length? Of pairs with a winner, and of unequal length; None where there is none.

    where_longer_won, where_shorter_won   the model's accuracy there
    balanced      their mean: "longer wins" and "shorter wins" both get exactly ½, whatever the raters like
    favours_longer  {"model", "raters", "difference"}: the share of pairs in which each prefers the longer response
    matched       the accuracy on the third of all pairs whose lengths are most alike
    correlation   of the score difference with `longer`, of the raters' preference with it, and of score difference and
                  preference once length is taken out of both (`partial`); see calibration.correlation
    """
    unequal = np.flatnonzero(longer != 0)
    if not len(unequal):
        return None
    side = np.sign(longer)
    right = rightness(difference, preference)
    longer_won = side * np.sign(preference - 0.5) > 0
    won, lost = unequal[longer_won[unequal]], unequal[~longer_won[unequal]]
    model, raters = (1 + np.sign(difference) * side) / 2, (1 + np.sign(preference - 0.5) * side) / 2
    ratio = np.abs(longer)
    matched = ratio <= np.quantile(ratio, 1 / 3)
    raters_lean = 2 * preference - 1
    return {
        "n": len(unequal),
        "where_longer_won": accuracy(right[won], groups[won]) if len(won) else None,
        "where_shorter_won": accuracy(right[lost], groups[lost]) if len(lost) else None,
        "balanced": _balanced(right, won, lost, groups) if len(won) and len(lost) else None,
        "favours_longer": {
            "model": accuracy(model[unequal], groups[unequal]),
            "raters": accuracy(raters[unequal], groups[unequal]),
            "difference": paired_difference(model[unequal], raters[unequal], groups[unequal]),
        },
        "matched": {
            **accuracy(right[matched], groups[matched]),
            "ratio": float(np.exp(ratio[matched].max())),  # how much longer the longer one is, at most
        },
        "correlation": {
            "model": correlation(difference, longer),
            "raters": correlation(raters_lean, longer),
            "partial": partial_correlation(difference, raters_lean, longer),
        },
    }


def _balanced(right: Floats, won: Any, lost: Any, groups: Names) -> dict[str, Any]:
    """The mean of the accuracies in two parts of the pairs, with its interval.

    Each pair gets balanced + (right - accuracy of its part) n / (2 size of its part): their mean is the number itself,
    and how it varies with the groups drawn is, to first order, how the number does (its influence function).
    """
    both = np.concatenate([won, lost])
    means = right[won].mean(), right[lost].mean()
    balanced = float(sum(means) / 2)
    values = [
        balanced + (right[part] - mean) * len(both) / (2 * len(part))
        for part, mean in zip((won, lost), means, strict=True)
    ]
    spread = paired_difference(np.concatenate(values), np.zeros(len(both)), groups[both])
    low, high = spread["interval"] or (0.0, 1.0)
    return {
        "accuracy": balanced,
        "interval": [max(0.0, low), min(1.0, high)],
        "standard_error": spread["standard_error"],
    }


def calibration(difference: Floats, preference: Floats, groups: Names) -> dict[str, Any]:
    """How far its probabilities can be believed, ties included; all log losses in nats a pair.

    `constant` is a predictor that says ½ of every pair, the best there is that knows neither response; `least` is the
    raters' own uncertainty, which no model can go below. `gain` is constant less model, with an interval. `scale` is
    what all scores would have to be multiplied by, and `scaled` the log loss then; null where no scale is best.
    """
    losses, scale = log_losses(difference, preference), best_scale(difference, preference)
    coin = np.full_like(losses, np.log(2))
    return {
        "n": len(losses),
        "log_loss": float(losses.mean()),
        "constant": float(np.log(2)),
        "gain": paired_difference(coin, losses, groups),
        "least": float(entropies(preference).mean()),
        "scale": scale,
        "scaled": float(log_losses(scale * difference, preference).mean()) if scale is not None else None,
        **reliability(difference, preference),
    }


def ranking(
    first: ArrayLike,
    second: ArrayLike,
    preference: ArrayLike,
    groups: Sequence[str] | Names,
    items: Sequence[tuple[Sequence[int], Sequence[float], str]],
) -> dict[str, Any]:
    """How well its scores order responses: {"roc_auc", "ndcg", "mrr", "chance", "rankings"}, null where undefined.

    first, second: (n,) scores of pairs with a winner. roc_auc is the chance that a preferred response scores above one
    that was not, of the same prompt or of another: whether one limit for all prompts would tell good from bad, where
    the accuracy asks only within a prompt. items: (ranks, scores, group) of whole rankings, for `rankings`.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    lean = np.asarray(preference) > 0.5
    scores = np.concatenate([np.where(lean, a, b), np.where(lean, b, a)])
    of = np.concatenate([np.asarray(groups)] * 2)
    found = rankings([ranks for ranks, _, _ in items], [given for _, given, _ in items], [g for *_, g in items])
    nothing = {"ndcg": None, "mrr": None, "chance": None, "rankings": 0}
    return {"roc_auc": roc_auc(scores, np.arange(len(scores)) < len(a), of), **(found or nothing)}


def by_sureness(difference: Floats, preference: Floats, groups: Names) -> list[dict[str, Any]]:
    """By how sure the raters were: mean score difference towards their side, and accuracy. Pairs with a winner."""
    sure = np.maximum(preference, 1 - preference)
    parts = {(low, high): (sure > low) & (sure <= high) if high < 1 else (sure > low) for low, high in pairwise(SURE)}
    return [
        {"low": low, "high": high, **_towards(difference, preference, inside, groups)}
        for (low, high), inside in parts.items()
        if inside.any()
    ]


def by_strength(
    difference: Floats, preference: Floats, strength: Sequence[float | None], groups: Names
) -> dict[str, Any] | None:
    """The same by the strength that raters gave: {"n", "correlation", "rows"}; None where nobody gave one.

    `correlation` is Spearman's rank correlation of score difference and strength, both signed towards the first
    response and taken in both orders of each pair (a tie has strength 0); None where undefined.
    """
    from scipy.stats import spearmanr

    said = np.array([value is not None for value in strength])
    if not said.any():
        return None
    lean = np.sign(preference - 0.5)
    size = np.array([value or 0.0 for value in strength], dtype=np.float64)
    signed = (lean * size)[said]
    both = np.concatenate([difference[said], -difference[said]]), np.concatenate([signed, -signed])
    defined = all(np.ptp(values) > 0 for values in both)
    rows = []
    for name, (low, high) in STRENGTHS.items():
        inside = said & (lean != 0) & (size >= low) & ((size < high) if high < 3 else (size <= 3))
        if inside.any():
            rows.append({"strength": name, **_towards(difference, preference, inside, groups)})
    return {
        "n": int(said.sum()),
        "correlation": float(spearmanr(*both).statistic) if defined else None,
        "rows": rows,
    }


def _towards(difference: Floats, preference: Floats, inside: Any, groups: Names) -> dict[str, Any]:
    lean = np.sign(preference - 0.5)
    right = rightness(difference[inside], preference[inside])
    return {"difference": float((difference * lean)[inside].mean()), **accuracy(right, groups[inside], resamples=_FEW)}


def human_ceiling(
    answers: Sequence[Sequence[Sequence[int]]], scores: Sequence[Sequence[float]], groups: Sequence[str]
) -> dict[str, Any] | None:
    """How well one rater predicts the others, and how well the model predicts the same: {"rater", "model",
    "difference"}; None where no two raters can be compared.

    One entry an item: its answers' ranks (m, k), the model's scores of its responses (k,), and its group. For each pair
    of responses and each rater, the question is which side most of the *other* raters take, where they take one. The
    rater is right (1), wrong (0), or ties (½); so is the model. The mean over the raters is the pair's value.
    """
    human, model, of = [], [], []
    for ranks, values, group in zip(answers, scores, groups, strict=True):
        if len(ranks) < 2:
            continue
        sides = pair_values(np.array(ranks, dtype=np.int64))  # (m, pairs): 1 = the first is better
        lean = np.sign(sides.sum(axis=0) - sides)
        first, second = np.triu_indices(len(values), k=1)
        says = np.sign(np.asarray(values)[first] - np.asarray(values)[second])
        asked = lean != 0
        for pair in np.flatnonzero(asked.any(axis=0)):
            some = asked[:, pair]
            human.append(((1 + sides[:, pair] * lean[:, pair]) / 2)[some].mean())
            model.append(((1 + says[pair] * lean[:, pair]) / 2)[some].mean())
            of.append(group)
    if not human:
        return None
    return {
        "rater": accuracy(human, of),
        "model": accuracy(model, of),
        "difference": paired_difference(model, human, of),
    }


def distribution(first: Floats, second: Floats, preference: Floats, moments: Mapping[str, float]) -> dict[str, Any]:
    """Scores in units of the run's own mean and spread: {"edges", "better", "worse", "mean", "std"}.

    `better` and `worse` count the scores of the responses that raters preferred, and the others', between the edges;
    ties are left out of both, and counted in mean and std.
    """
    mean, std = moments["mean"], max(moments["std"], 1e-8)
    a, b = (first - mean) / std, (second - mean) / std
    lean = np.sign(preference - 0.5)
    better, worse = np.where(lean > 0, a, b)[lean != 0], np.where(lean > 0, b, a)[lean != 0]
    every = np.concatenate([a, b])
    edges = np.histogram_bin_edges(every, bins=24)
    return {
        "edges": edges.tolist(),
        "better": np.histogram(better, edges)[0].tolist(),
        "worse": np.histogram(worse, edges)[0].tolist(),
        "mean": float(every.mean()),
        "std": float(every.std()),
    }
