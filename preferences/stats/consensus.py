"""What the answers to items say together, and how far each rater can be trusted: one model of pairs and rankings.

Response i of an item has a latent score s_i ~ N(0, τ²). Of two responses with d = s_i - s_j a rater r gives, with
probability ρ_r, their own judgement: Bradley-Terry with ties (Rao & Kupper 1967, JASA 62; as an ordered logit),

    P(i better) = σ(d - κ_r),   P(j better) = σ(-d - κ_r),   P(tie) the rest,

and otherwise, with 1 - ρ_r, what does not depend on the responses: a tie as often as they tie anyway, else a coin that
may lean to what was shown first (the mixture of MACE, Hovy et al. 2013, with an ordered logit in place of the true
class). ρ_r in [0, 1] is the rater's reliability; who is against the others more often than a coin is taken for a coin,
never turned round. κ_r is told by `ties`, the share of pairs that the rater ties. A strength adds cut points beyond
κ_r, placed where the shares of strengths among all raters put them. The k(k-1)/2 pairs of one ranking hang together:
each counts 2/k.

Raters' parameters and items' scores are found together by belief propagation (Liu, Peng & Ihler 2012, NIPS), so that no
answer speaks for itself; the distribution of ρ and of `ties` over raters, and τ, by empirical Bayes around defaults
that hold where there is too little overlap to say. docs/consensus.md says why this model.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from preferences.stats.coefficients import pairs_of
from preferences.stats.heard import ANY, TIE, Floats, Heard, Ints, Prepared, Said, hear, prepare, strong_shares
from preferences.stats.reliability import NORMAL, D, Parameters, Rater, learn, normalised, sums, tables

SIDES = np.array([ANY, TIE, -ANY])  # the codes of: first better, tie, second better


class ItemFit(NamedTuple):
    preference: Floats  # (k, k): P(a rater with reliability 1 prefers i to j), a tie counted half; 0.5 on the diagonal
    tie: Floats  # (k, k): P(such a rater ties them); 1 on the diagonal
    sure: Floats  # (k, k): P(s_i > s_j); 0.5 on the diagonal
    weight: float  # how well `preference` is known: the share of its variance between items that the answers took away
    ranks: list[int]  # 1 + how many responses such a rater most likely says are better


class Fit(NamedTuple):
    raters: dict[str, Rater]
    items: list[ItemFit]
    parameters: Parameters


def fit(items: Sequence[Sequence[Said]], gold: Mapping[int, Sequence[int]] | None = None) -> Fit:
    """Fit raters and items together. `gold` has the ranks that are known to be right, by index of the item.

    An item without answers and without gold has no number of responses, and gets a fit of none (arrays of 0 × 0).
    Raises ValueError for ragged ranks, fewer than two responses, or a rater who answers an item twice.

    The result does not depend on the order of answers within an item, and reordering an item's responses reorders
    its result; both exactly. The order of items and the names of raters change it by rounding errors at most.
    """
    gold = gold or {}
    names = {name: n for n, name in enumerate(sorted({said.rater for item in items for said in item}))}
    prepared = [prepare(index, item, gold.get(index)) for index, item in enumerate(items)]
    heard, starts = hear(prepared, names)
    strong = strong_shares(heard)
    learnt = learn(heard, len(names), strong)
    counts = np.bincount([names[said.rater] for item in items for said in item], minlength=len(names))
    raters = {
        name: Rater(
            _short(learnt.reliability[n]),
            (_short(learnt.intervals[n, 0]), _short(learnt.intervals[n, 1])),
            int(counts[n]),
            _short(learnt.ties[n]),
            _short(learnt.first[n]),
        )
        for name, n in names.items()
    }
    parameters = Parameters(_short(learnt.spread), _short(learnt.pool[0]), _short(learnt.pool[1]), strong)
    return Fit(raters, _items(prepared, heard, starts, list(names), raters, parameters), parameters)


def posterior(
    answers: Sequence[Said],
    raters: Mapping[str, float | Rater],
    parameters: Parameters,
    gold: Sequence[int] | None = None,
) -> ItemFit:
    """What the answers to one item say, given what is known of raters; a rater who is not in `raters` is average."""
    prepared = [prepare(0, answers, gold)]
    names = {said.rater: n for n, said in enumerate(answers)}
    heard, starts = hear(prepared, names)
    known = {name: _rater(raters.get(name, parameters.reliability), parameters) for name in names}
    return _items(prepared, heard, starts, list(known), known, parameters)[0]


def expected(items: Sequence[Sequence[Said]], fit: Fit) -> list[list[Floats]]:
    """What was to be expected of each answer, from the other raters' answers to the item and what is known of them all.

    A list an item, an array an answer: (pairs, 3), of the pairs (0,1), (0,2), …: P(first better), P(tie), P(second
    better). In a ranking each pair is taken by itself, since its rater's other pairs would tell on it.
    """
    prepared = [prepare(index, item, None) for index, item in enumerate(items)]
    names = list(fit.raters)
    heard, starts = hear(prepared, {name: n for n, name in enumerate(names)})
    logs, own, habit = _logs(heard, names, fit.raters, fit.parameters)
    told = sums(logs, heard.unit, len(heard.gold)) + np.log(NORMAL)
    others = normalised(told[heard.unit] - logs) if len(logs) else logs
    rho = np.array([fit.raters[name].reliability for name in names])[heard.rater]
    likely = np.empty((len(logs), 3))
    for column, code in enumerate(SIDES + 4):
        judged = np.einsum("nd,nd->n", others, own[code, heard.rater])
        leaning = (
            1 + np.sign(code - 4) * heard.place * np.array([fit.raters[name].first for name in names])[heard.rater]
        )
        likely[:, column] = rho * judged + (1 - rho) * habit[code, heard.rater] * leaning
    ends = np.searchsorted(heard.unit, starts)
    result = []
    for item, one, begin, end in zip(items, prepared, ends[:-1], ends[1:], strict=True):
        table = likely[begin:end].reshape(-1, len(item), 3) if item else likely[:0]
        by_rater = dict(zip(one.raters, _import_order(table, one.order).swapaxes(0, 1), strict=True)) if item else {}
        result.append([by_rater[said.rater] for said in item])
    return result


def _import_order(table: Floats, order: Ints) -> Floats:
    """Rows of pairs in an item's own order (pairs, …, first/tie/second) -> the same in import order."""
    k = len(order)
    one, other = order[np.stack(pairs_of(k))]
    low, high = np.minimum(one, other), np.maximum(one, other)
    result = np.empty_like(table)
    result[low * (2 * k - low - 1) // 2 + high - low - 1] = np.where(
        (one > other).reshape(-1, *[1] * (table.ndim - 1)), table[..., ::-1], table
    )
    return result


def _rater(value: float | Rater, parameters: Parameters) -> Rater:
    return value if isinstance(value, Rater) else Rater(value, (0.0, 1.0), 0, parameters.ties)


def _short(value: float) -> float:
    return round(float(value), 9)


# Items, given the raters


def _items(
    prepared: Sequence[Prepared],
    heard: Heard,
    starts: Ints,
    names: Sequence[str],
    raters: Mapping[str, Rater],
    parameters: Parameters,
) -> list[ItemFit]:
    none = np.empty((0, 0))
    result = [ItemFit(none, none, none, 0.0, [])] * len(prepared)
    judged = _judged(parameters)
    for rows, beliefs in _beliefs(prepared, heard, starts, names, raters, parameters):
        orders = np.array([prepared[row].order for row in rows])
        for row, found in zip(rows, _fits(beliefs, judged, orders), strict=True):
            result[row] = found
    return result


def _beliefs(
    prepared: Sequence[Prepared],
    heard: Heard,
    starts: Ints,
    names: Sequence[str],
    raters: Mapping[str, Rater],
    parameters: Parameters,
) -> Iterator[tuple[list[int], Floats]]:
    """Numbers of items (n,), and the posterior of the differences of their pairs (n, pairs, D), in their own orders."""
    told = heard.gold @ np.log(_judged(parameters))  # (units, D): log likelihood of what was said of each unit
    logs, _, _ = _logs(heard, names, raters, parameters)
    told = told + sums(logs * heard.share[:, None], heard.unit, len(told))
    sizes: dict[int, list[int]] = defaultdict(list)
    for index, one in enumerate(prepared):
        if len(one.order):
            sizes[len(one.order)].append(index)
    for k, rows in sizes.items():
        pairs = k * (k - 1) // 2
        size = max(1, 2_000_000 // (pairs * len(D)))
        for chunk in (rows[begin : begin + size] for begin in range(0, len(rows), size)):
            yield chunk, _propagate(told[starts[chunk][:, None] + np.arange(pairs)], k)


def _logs(
    heard: Heard, names: Sequence[str], raters: Mapping[str, Rater], parameters: Parameters
) -> tuple[Floats, Floats, Floats]:
    """log P(what was said | d) (n, D), and the tables of judgement (9, raters, D) and habit (9, raters)."""
    rho = np.array([raters[name].reliability for name in names])[heard.rater]
    own, habit = tables(np.array([raters[name].ties for name in names]), parameters.spread, parameters.strong)
    at = heard.code + 4, heard.rater
    leaning = 1 + np.sign(heard.code) * heard.place * np.array([raters[name].first for name in names])[heard.rater]
    return np.log(rho[:, None] * own[at] + ((1 - rho) * habit[at] * leaning)[:, None]), own, habit


def _propagate(told: Floats, k: int) -> Floats:
    """Log likelihoods of the pairs of items (n, pairs, D) -> posterior of each pair's difference, the same shape.

    Expectation propagation (Minka 2001) over scores with one factor a pair: for k = 2 it is exact. Units: √2 τ.
    """
    n, pairs = told.shape[:2]
    first, second = pairs_of(k)
    contrast = np.zeros((pairs, k))
    contrast[np.arange(pairs), first], contrast[np.arange(pairs), second] = 1.0, -1.0
    precision, shift = np.zeros((n, pairs)), np.zeros((n, pairs))
    for _ in range(1 if k == 2 else 30):
        inverse = np.linalg.inv(2 * np.eye(k) + np.einsum("np,pi,pj->nij", precision, contrast, contrast))
        mean = np.einsum("pi,nij,nj->np", contrast, inverse, shift @ contrast)
        variance = np.einsum("pi,nij,pj->np", contrast, inverse, contrast)
        rest = 1 / variance - precision  # of the cavity: all that is known of the pair but what was said of it
        centre = (mean / variance - shift) / rest
        logs = told - (D - centre[..., None]) ** 2 * rest[..., None] / 2
        belief = np.exp(logs - logs.max(axis=-1, keepdims=True))
        belief /= belief.sum(axis=-1, keepdims=True)
        middle = belief @ D
        width = np.maximum((belief * (D - middle[..., None]) ** 2).sum(axis=-1), 1e-4)
        target = np.maximum(1 / width - rest, 0.0)
        aim = (rest + target) * middle - rest * centre
        moved = np.maximum(np.abs(target - precision), np.abs(aim - shift)).max(axis=1, keepdims=True)
        going = moved >= 1e-7  # by item: what else is in the array must not tell on it
        if not going.any():
            break
        precision = np.where(going, (precision + target) / 2, precision)
        shift = np.where(going, (shift + aim) / 2, shift)
    return belief


def _judged(parameters: Parameters) -> Floats:
    """What a rater with reliability 1, who ties as often as the mean rater, says: P(code | d) (9, D)."""
    return tables(np.array([parameters.ties]), parameters.spread, parameters.strong)[0][:, 0]


def _fits(beliefs: Floats, judged: Floats, orders: Ints) -> list[ItemFit]:
    """Beliefs (n, pairs, D) of items with one number of responses, and their own orders (n, k) -> what to tell."""
    one, tied, other = np.moveaxis(beliefs @ judged[SIDES + 4].T, -1, 0)
    prefers = (1 + judged[ANY + 4] - judged[-ANY + 4]) / 2  # given d, a tie counted half
    preference = beliefs @ prefers
    left = np.mean(beliefs @ prefers**2 - preference**2, axis=1) / (NORMAL @ (prefers - 0.5) ** 2)
    preference, tied = np.round(preference, 9), np.round(tied, 9)
    middle = len(D) // 2  # where d = 0: half of its cell is above, and Euler-Maclaurin's first correction
    above = beliefs[..., middle + 1 :].sum(axis=-1) + beliefs[..., middle] / 2
    sure = np.round(np.clip(above + (beliefs[..., middle + 1] - beliefs[..., middle - 1]) / 24, 0, 1), 9)
    winner = np.where((tied >= np.maximum(one, other)) | (preference == 0.5), 0, np.sign(one - other))
    weights = np.round(np.clip(1 - left, 0, 1), 9).tolist()
    ranks = 1 + _squares(winner < 0, winner > 0, orders, 0).sum(axis=-1)
    preferences = _squares(preference, np.round(1 - preference, 9), orders, 0.5)
    ties, surely = _squares(tied, tied, orders, 1.0), _squares(sure, np.round(1 - sure, 9), orders, 0.5)
    return [ItemFit(*found) for found in zip(preferences, ties, surely, weights, ranks.tolist(), strict=True)]


def _squares(values: Any, mirrored: Any, orders: Ints, diagonal: float) -> Any:
    """Numbers of pairs (n, pairs), and of the pairs turned round -> (n, k, k), in import order."""
    n, k = orders.shape
    first, second = np.triu_indices(k, k=1)
    result = np.full((n, k, k), diagonal)
    at = np.arange(n)[:, None]
    result[at, orders[:, first], orders[:, second]] = values
    result[at, orders[:, second], orders[:, first]] = mirrored
    return result
