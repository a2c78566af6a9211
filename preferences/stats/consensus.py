"""What the answers to items say together, and how far each rater can be trusted: one model of pairs and rankings.

Response i of an item has a latent score s_i ~ N(0, τ²). Of two responses with d = s_i - s_j a rater r gives, with
probability ρ_r, their own judgement: Bradley-Terry with ties (Rao & Kupper 1967, JASA 62; as an ordered logit),

    P(i better) = σ(d - κ_r),   P(j better) = σ(-d - κ_r),   P(tie) the rest,

and otherwise, with 1 - ρ_r, what does not depend on the responses: a tie as often as they tie anyway, else a coin (the
mixture of MACE, Hovy et al. 2013, with an ordered logit in place of the true class). ρ_r in [0, 1] is the rater's
reliability; who is against the others more often than a coin is taken for a coin, never turned round. κ_r is told by
`ties`, the share of pairs that the rater ties. A strength adds cut points beyond κ_r, placed where the shares of
strengths among all raters put them. The k(k-1)/2 pairs of one ranking hang together: each counts 2/k.

Raters' parameters and items' scores are found together by belief propagation (Liu, Peng & Ihler 2012, NIPS), so that no
answer speaks for itself; the distribution of ρ and of `ties` over raters, and τ, by empirical Bayes around defaults
that hold where there is too little overlap to say. docs/consensus.md says why this model, with numbers.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

D = np.linspace(-4.8, 4.8, 49)  # score differences over their prior standard deviation, √2 τ
NORMAL = np.exp(-(D**2) / 2) / np.exp(-(D**2) / 2).sum()
RHO = np.linspace(0, 1, 41)  # edges of the cells in which a rater's reliability may lie …
TIES = np.linspace(0, 1, 33) ** 2  # … and their share of ties
CUTS = np.array([0.002, 0.01, 0.03, 0.06, 0.1, 0.15, 0.22, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.995])
RHO_PRIOR, TIES_PRIOR = (0.78, 0.7), (0.12, 1.5)  # mean over raters: median, and standard deviation of its logit
SPREAD, SPREAD_SD = 4.0, 0.35  # √2 τ: median, and standard deviation of its logarithm
GOLD = 10.0  # a right answer that is known counts as so many answers of raters with reliability 1
STRONG = (0.6, 0.25)  # shares of decided pairs with strength >= 2, >= 3; worth 20 answers
TIE, ANY = 0, 4  # codes of what is said of a pair, positive where the first is better: 1-3 strength, 4 none given


class Said(NamedTuple):
    """One rater's answer: ranks 1 = best, equal = tie; of the strength only the size counts, 1 to 3."""

    rater: str
    ranks: Sequence[int]
    strength: int | None = None


class Rater(NamedTuple):
    reliability: float  # ρ: posterior mean; 0 = a coin, 1 = their own judgement each time
    interval: tuple[float, float]  # 95%, of the posterior
    answers: int
    ties: float  # the share of pairs that they tie: posterior mean


class Parameters(NamedTuple):
    """What `posterior` needs beside the raters."""

    spread: float  # √2 τ: prior standard deviation of a difference of scores, in units of the logistic noise
    reliability: float  # mean over raters, for a rater nobody knows
    ties: float  # mean share of ties, of the rater whose preference is told, and of one nobody knows
    strong: tuple[float, float]  # shares of decided pairs with strength >= 2 and >= 3


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


class _Heard(NamedTuple):
    """All that was said of pairs of responses, sorted by unit (a pair of an item), the answers of a unit by rater."""

    unit: Ints  # (n,)
    rater: Ints  # (n,)
    code: Ints  # (n,): -4 … 4
    share: Floats  # (n,): 2/k
    gold: Floats  # (units, 9): how often each code counts as said by a rater with reliability 1


def fit(items: Sequence[Sequence[Said]], gold: Mapping[int, Sequence[int]] | None = None) -> Fit:
    """Fit raters and items together. `gold` has the ranks that are known to be right, by index of the item.

    An item without answers and without gold has no number of responses, and gets a fit of none (arrays of 0 × 0).
    Raises ValueError for ragged ranks, fewer than two responses, or a rater who answers an item twice.

    The result does not depend on the order of answers within an item, and reordering an item's responses reorders
    its result; both exactly. The order of items and the names of raters change it by rounding errors at most.
    """
    gold = gold or {}
    names: dict[str, int] = {}
    for item in items:
        for said in item:
            names.setdefault(said.rater, len(names))
    prepared = [_canonical(index, item, gold.get(index)) for index, item in enumerate(items)]
    heard, starts = _hear(prepared, names)
    strong = _strong_shares(heard)
    rho, ties, spread, spans = _learn(heard, len(names), strong)
    counts = np.zeros(len(names), dtype=int)
    for item in items:
        for said in item:
            counts[names[said.rater]] += 1
    raters = {
        name: Rater(_short(rho[n]), (_short(spans[n, 0]), _short(spans[n, 1])), int(counts[n]), _short(ties[n]))
        for name, n in names.items()
    }
    parameters = Parameters(float(spread[0]), _short(spread[1]), _short(spread[2]), strong)
    beliefs = _beliefs(prepared, heard, starts, list(names), raters, parameters)
    found = [_item(belief, one.order, parameters) for belief, one in zip(beliefs, prepared, strict=True)]
    return Fit(raters, found, parameters)


def posterior(
    answers: Sequence[Said],
    raters: Mapping[str, float | Rater],
    parameters: Parameters,
    gold: Sequence[int] | None = None,
) -> ItemFit:
    """What the answers to one item say, given what is known of raters; a rater who is not in `raters` is average."""
    belief, order = _belief(answers, raters, parameters, gold)
    return _item(belief, order, parameters)


def says(answers: Sequence[Said], raters: Mapping[str, float | Rater], parameters: Parameters, rater: str) -> Floats:
    """What a rater would say of the pairs (0,1), (0,2), …: (pairs, 3), P(first better), P(tie), P(second better)."""
    belief, order = _belief(answers, raters, parameters, None)
    who = _rater(raters.get(rater, parameters.reliability), parameters)
    own, habit = (table[:, 0] for table in _tables(np.array([who.ties]), parameters.spread, parameters.strong))
    first, tie, second = (
        who.reliability * belief @ own[code + 4] + (1 - who.reliability) * habit[code + 4] for code in (ANY, TIE, -ANY)
    )
    better, tied = _square(first, second, order, 0.0), _square(tie, tie, order, 0.0)
    at = np.triu_indices(len(order), k=1)
    return np.stack([better[at], tied[at], better.T[at]], axis=1)


def _belief(
    answers: Sequence[Said],
    raters: Mapping[str, float | Rater],
    parameters: Parameters,
    gold: Sequence[int] | None,
) -> tuple[Floats, Ints]:
    prepared = [_canonical(0, answers, gold)]
    names = {said.rater: n for n, said in enumerate(answers)}
    known = {name: _rater(raters.get(name, parameters.reliability), parameters) for name in names}
    heard, starts = _hear(prepared, names)
    return _beliefs(prepared, heard, starts, list(names), known, parameters)[0], prepared[0].order


def _rater(value: float | Rater, parameters: Parameters) -> Rater:
    return value if isinstance(value, Rater) else Rater(value, (0.0, 1.0), 0, parameters.ties)


def _short(value: float) -> float:
    return round(float(value), 9)


# What is said, in an order of its own


class _Prepared(NamedTuple):
    order: Ints  # (k,): the item's responses in an order that depends on the answers only
    raters: list[str]
    ranks: Ints  # (m, k), in that order
    strengths: list[int]  # 0 where none is given
    gold: Ints | None  # (k,), in that order


def _canonical(index: int, answers: Sequence[Said], gold: Sequence[int] | None) -> _Prepared:
    """Sort answers by rater and responses by what was said of them: then every order of either gives the same bits."""
    ordered = sorted(answers, key=lambda said: said.rater)
    lengths = {len(said.ranks) for said in ordered} | ({len(gold)} if gold is not None else set())
    if not lengths:
        return _Prepared(np.empty(0, dtype=np.int64), [], np.empty((0, 0), dtype=np.int64), [], None)
    if len(lengths) > 1 or min(lengths) < 2:
        raise ValueError(f"item {index}: rank lists of lengths {sorted(lengths)}; they must be equal, and at least 2")
    if len({said.rater for said in ordered}) < len(ordered):
        raise ValueError(f"item {index}: a rater answers it twice")
    right = [list(gold)] if gold is not None else []
    table = np.array(right + [list(said.ranks) for said in ordered], dtype=np.int64)
    order = np.lexsort(table[::-1])
    table = table[:, order]
    strengths = [min(abs(said.strength), 3) if said.strength else 0 for said in ordered]
    return _Prepared(
        order, [said.rater for said in ordered], table[len(right) :], strengths, table[0] if right else None
    )


def _hear(prepared: Sequence[_Prepared], names: Mapping[str, int]) -> tuple[_Heard, Ints]:
    """All pairs of all answers; also where each item's units start (items + 1,)."""
    sizes = [len(one.order) for one in prepared]
    starts = np.concatenate([[0], np.cumsum([k * (k - 1) // 2 for k in sizes])]).astype(np.int64)
    gold = np.zeros((starts[-1], 9))
    shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, one in enumerate(prepared):
        if one.gold is not None:
            codes = _codes(one.gold[None], np.zeros(1, dtype=np.int64))[0]
            gold[np.arange(starts[index], starts[index + 1]), codes + 4] = GOLD * 2 / len(one.order)
        if one.raters:
            shapes[one.ranks.shape].append(index)
    parts = []
    for (m, k), rows in shapes.items():
        ranks = np.array([prepared[row].ranks for row in rows]).reshape(-1, k)
        strengths = np.array([prepared[row].strengths for row in rows], dtype=np.int64).ravel()
        who = np.array([[names[name] for name in prepared[row].raters] for row in rows], dtype=np.int64).ravel()
        pairs = k * (k - 1) // 2
        unit = np.repeat(starts[rows], m)[:, None] + np.arange(pairs)
        parts.append((unit.ravel(), np.repeat(who, pairs), _codes(ranks, strengths).ravel(), np.full(unit.size, 2 / k)))
    if not parts:
        none = np.empty(0, dtype=np.int64)
        return _Heard(none, none, none, np.empty(0), gold), starts
    unit, rater, code, share = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(unit, kind="stable")
    return _Heard(unit[order], rater[order], code[order], share[order], gold), starts


def _codes(ranks: Ints, strengths: Ints) -> Ints:
    """Ranks (n, k), strengths (n,), 0 = none -> codes (n, k(k-1)/2); a strength is about the best over the second."""
    first, second = np.triu_indices(ranks.shape[1], k=1)
    sign = np.sign(ranks[:, second] - ranks[:, first])
    best = ranks.min(axis=1, keepdims=True)
    above = np.where(ranks > best, ranks, np.iinfo(np.int64).max).min(axis=1)
    low, high = np.minimum(ranks[:, first], ranks[:, second]), np.maximum(ranks[:, first], ranks[:, second])
    told = (strengths > 0) & ((ranks == best).sum(axis=1) == 1)
    about = told[:, None] & (low == best) & (high == above[:, None])
    return sign * np.where(about, strengths[:, None], ANY)


def _strong_shares(heard: _Heard) -> tuple[float, float]:
    sizes = np.abs(heard.code)
    told = ((sizes > 0) & (sizes < ANY)).sum()
    two, three = ((sizes >= low) & (sizes < ANY) for low in (2, 3))
    return (_short((20 * STRONG[0] + two.sum()) / (20 + told)), _short((20 * STRONG[1] + three.sum()) / (20 + told)))


# The model


def _logistic(x: Floats) -> Floats:
    return (1 + np.tanh(x / 2)) / 2


def _tables(ties: Floats, spread: float, strong: tuple[float, float]) -> tuple[Floats, Floats]:
    """Own judgement (9, T, D) and habit (9, T): P(code | d) and P(code), for raters with these shares of ties (T,).

    A cut point stands where the share of pairs beyond it, over all d, is what it should be: 1 - ties for κ, and the
    shares of strengths beyond it for the others.
    """
    cuts, beyond = _beyond(spread)
    shares = (1 - ties) * np.array([1.0, *strong])[:, None]  # (3, T)
    kappa = np.interp(-shares, -beyond, cuts)
    over = _logistic(spread * D - kappa[..., None])  # (3, T, D): P(strength >= 1, 2, 3 for the first)
    first = np.stack([over[0] - over[1], over[1] - over[2], over[2], over[0]])
    second = first[..., ::-1]
    tie = 1 - over[0] - over[0][:, ::-1]
    steps = np.stack([shares[0] - shares[1], shares[1] - shares[2], shares[2], shares[0]]) / 2
    own = np.concatenate([second[::-1], tie[None], first])
    habit = np.concatenate([steps[::-1], ties[None], steps])
    return np.clip(own, 1e-12, 1), np.clip(habit, 1e-12, 1)


@lru_cache(maxsize=16)
def _beyond(spread: float) -> tuple[Floats, Floats]:
    """Cut points, and the share of pairs beyond each on either side, which falls from 1 to 0."""
    cuts = np.concatenate([[0.0], np.geomspace(1e-3, 12 + 6 * spread, 160)])
    return cuts, 2 * _logistic(spread * D - cuts[:, None]) @ NORMAL


def _sums(values: Floats, groups: Ints, count: int) -> Floats:
    """Sum the rows of values (n, c) by their group (n,), which is sorted -> (count, c)."""
    result = np.zeros((count, values.shape[1]))
    if len(groups):
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        result[groups[starts]] = np.add.reduceat(values, starts, axis=0)
    return result


def _normalised(logs: Floats) -> Floats:
    result = np.exp(logs - logs.max(axis=1, keepdims=True))
    return result / result.sum(axis=1, keepdims=True)


def _learn(heard: _Heard, raters: int, strong: tuple[float, float]) -> tuple[Floats, Floats, Floats, Floats]:
    """Belief propagation between units and raters.

    Returns reliability (raters,), ties (raters,), (spread, mean reliability, mean ties), intervals (raters, 2).
    """
    units, n = len(heard.gold), len(heard.code)
    by_rater = np.argsort(heard.rater, kind="stable")
    code, tied = heard.code + 4, heard.code == TIE

    # 1. How often each rater ties. Their pairs alone say it, since habit and judgement tie equally often.
    counts = [np.bincount(heard.rater, heard.share * which, raters) for which in (tied, ~tied)]
    grid = (TIES[1:] + TIES[:-1]) / 2
    likely = counts[0][:, None] * np.log(grid) + counts[1][:, None] * np.log(1 - grid)
    pool = _pool(likely, TIES, *TIES_PRIOR)
    ties, mean_ties = _normalised(likely + np.log(pool)) @ grid, float(pool @ grid)
    but = [_normalised(likely - np.log(one) + np.log(pool)) @ grid for one in (grid, 1 - grid)]
    shares = np.where(tied, but[0][heard.rater], but[1][heard.rater])  # of the rater, from their other pairs
    node = np.clip(np.searchsorted(CUTS, shares) - 1, 0, len(CUTS) - 2)
    part = np.clip((shares - CUTS[node]) / (CUTS[node + 1] - CUTS[node]), 0, 1)

    def said(spread: float, rows: Any = slice(None)) -> tuple[Floats, Floats]:
        """What judgement (rows, D) and habit (rows,) give to what was said."""
        own, habit = _tables(CUTS, spread, strong)
        at, low, up = code[rows], node[rows], part[rows]
        judged = own[at, low] * (1 - up[:, None]) + own[at, low + 1] * up[:, None]
        return judged, habit[at, low] * (1 - up) + habit[at, low + 1] * up

    def anchors(spread: float) -> Floats:
        own, _ = _tables(np.array([mean_ties]), spread, strong)
        return heard.gold @ np.log(own[:, 0]) + np.log(NORMAL)

    # 2. Messages to and fro; the spread climbs on every few units, which is enough to know it.
    plain = ~heard.gold.any(axis=1) & (np.arange(units) % (1 + units // 4000) == 0)
    some = np.flatnonzero(plain[heard.unit])
    grid = (RHO[1:] + RHO[:-1]) / 2
    spread, rho, means = SPREAD, np.full(n, RHO_PRIOR[0]), np.full(raters, RHO_PRIOR[0])

    def height(value: float) -> float:
        judged, habit = said(value, some)
        trust = _along(rho[some], spread, value)
        logs = np.log(trust[:, None] * judged + ((1 - trust) * habit)[:, None])
        told = _sums(logs, heard.unit[some], units)[plain] + np.log(NORMAL)
        return _log_sum(told).sum() - np.log(value / SPREAD) ** 2 / (2 * SPREAD_SD**2)

    for step in range(30):
        if step and n:
            climbed = _climb(height, spread, 0.4 / step**0.5)
            rho, spread = _along(rho, spread, climbed), climbed
        judged, habit = said(spread)
        logs = np.log(rho[:, None] * judged + ((1 - rho) * habit)[:, None])
        told = _sums(logs, heard.unit, units) + anchors(spread)
        others = _normalised(told[heard.unit] - logs)
        own = np.einsum("nd,nd->n", others, judged)
        ratio = np.log(habit[:, None] + (own - habit)[:, None] * grid) * heard.share[:, None]
        likely = _sums(ratio[by_rater], heard.rater[by_rater], raters)
        pool = _pool(likely, RHO, *RHO_PRIOR)
        likely += np.log(pool)
        before, means = means, _normalised(likely) @ grid
        rho = _normalised(likely[heard.rater] - ratio) @ grid
        if np.abs(means - before).max(initial=0) < 1e-3:
            break
    population = np.array([spread, pool @ grid, mean_ties])
    return means, ties, population, _intervals(_normalised(likely))


def _along(rho: Floats, old: float, new: float) -> Floats:
    """Reliabilities under which raters agree as far as before when the spread changes: along the ridge, not across."""
    sides = [NORMAL @ np.tanh(spread * D / 2) ** 2 for spread in (old, new)]
    return np.minimum(rho * (sides[0] / sides[1]) ** 0.5, 0.999)


def _log_sum(logs: Floats) -> Floats:
    top = logs.max(axis=1, keepdims=True)
    return np.log(np.exp(logs - top).sum(axis=1)) + top[:, 0]


def _pool(likely: Floats, edges: Floats, centre: float, width: float) -> Floats:
    """Log likelihoods of raters (raters, cells) -> how the share is distributed over raters (cells,).

    A beta distribution, averaged over its mean and concentration by how well they fit (empirical Bayes, with a prior:
    the logit of the mean is normal around `centre`, the log of the concentration around that of 5), and 1% even.
    """
    low, high, middle = edges[:-1], edges[1:], (edges[1:] + edges[:-1]) / 2
    about = np.linspace(-3.5, 3.5, 41) * width + np.log(centre / (1 - centre))
    firm = np.geomspace(1, 60, 9)
    mean, firm = (both.ravel()[:, None] for both in np.meshgrid(_logistic(about), firm))
    a, b = mean * firm, (1 - mean) * firm
    left = (high**a - low**a) / a * (1 - middle) ** (b - 1)  # exact where the density may be infinite: at its end
    right = ((1 - low) ** b - (1 - high) ** b) / b * middle ** (a - 1)
    beta = np.where(middle < 0.5, left, right)
    beta = 0.99 * beta / beta.sum(axis=1, keepdims=True) + 0.01 * np.diff(edges)
    prior = -((np.log(mean / (1 - mean)) - np.log(centre / (1 - centre))) ** 2) / (2 * width**2)
    prior -= np.log(firm / 5) ** 2 / (2 * 0.8**2)
    top = likely.max(axis=1, keepdims=True)
    fits = np.log(np.exp(likely - top) @ beta.T).sum(axis=0)
    return _normalised((prior[:, 0] + fits)[None])[0] @ beta


def _climb(height: Callable[[float], float], at: float, step: float) -> float:
    """One step up in log space: to the top of the parabola through three points, no further than `step`."""
    low, middle, high = height(at * np.exp(-step)), height(at), height(at * np.exp(step))
    bend = low - 2 * middle + high
    move = (low - high) / (2 * bend) if bend < 0 else float(np.sign(high - low))
    return float(at * np.exp(step * np.clip(move, -1, 1)))


def _intervals(belief: Floats) -> Floats:
    """Belief in each cell of RHO (raters, cells) -> 95% intervals (raters, 2); within a cell it is spread evenly."""
    below = np.concatenate([np.zeros((len(belief), 1)), np.cumsum(belief, axis=1)], axis=1)
    return np.array([np.interp([0.025, 0.975], row, RHO) for row in below]).reshape(-1, 2)


# Items, given the raters


def _beliefs(
    prepared: Sequence[_Prepared],
    heard: _Heard,
    starts: Ints,
    names: Sequence[str],
    raters: Mapping[str, Rater],
    parameters: Parameters,
) -> list[Floats]:
    """Posterior of the differences of each item's pairs (pairs, D), in the item's own order."""
    rho = np.array([raters[name].reliability for name in names])
    ties = np.array([raters[name].ties for name in names])
    own, _ = _tables(np.array([parameters.ties]), parameters.spread, parameters.strong)
    told = heard.gold @ np.log(own[:, 0])  # (units, D): log likelihood of what was said of each unit
    if len(heard.code):
        shares = np.unique(ties)
        each, each_habit = _tables(shares, parameters.spread, parameters.strong)
        at = np.searchsorted(shares, ties)[heard.rater]
        trust = rho[heard.rater, None]
        said = trust * each[heard.code + 4, at] + (1 - trust) * each_habit[heard.code + 4, at][:, None]
        told = told + _sums(np.log(said) * heard.share[:, None], heard.unit, len(told))
    sizes: dict[int, list[int]] = defaultdict(list)
    for index, one in enumerate(prepared):
        sizes[len(one.order)].append(index)
    result = [np.empty((0, len(D)))] * len(prepared)
    for k, rows in sizes.items():
        if k < 2:
            continue
        pairs = k * (k - 1) // 2
        size = max(1, 2_000_000 // (pairs * len(D)))
        for chunk in (rows[begin : begin + size] for begin in range(0, len(rows), size)):
            units = starts[chunk][:, None] + np.arange(pairs)
            for row, belief in zip(chunk, _propagate(told[units], k), strict=True):
                result[row] = belief
    return result


def _propagate(told: Floats, k: int) -> Floats:
    """Log likelihoods of the pairs of items (n, pairs, D) -> posterior of each pair's difference, the same shape.

    Expectation propagation (Minka 2001) over scores with one factor a pair: for k = 2 it is exact. Units: √2 τ.
    """
    n, pairs = told.shape[:2]
    first, second = np.triu_indices(k, k=1)
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
        moved = np.abs(target - precision).max(initial=0)
        precision, shift = (precision + target) / 2, (shift + (rest + target) * middle - rest * centre) / 2
        if moved < 1e-7:
            break
    return belief


def _item(belief: Floats, order: Ints, parameters: Parameters) -> ItemFit:
    if not len(order):
        none = np.empty((0, 0))
        return ItemFit(none, none, none, 0.0, [])
    judged = _tables(np.array([parameters.ties]), parameters.spread, parameters.strong)[0][:, 0]
    one, tied, other = (belief @ judged[code + 4] for code in (ANY, TIE, -ANY))
    prefers = (1 + judged[ANY + 4] - judged[-ANY + 4]) / 2  # given d, a tie counted half
    known = belief @ prefers
    left = np.mean((belief * (prefers - known[:, None]) ** 2).sum(axis=1)) / (NORMAL @ (prefers - 0.5) ** 2)
    preference, tied = np.round(known, 9), np.round(tied, 9)
    sure = np.round(belief[:, D > 1e-9].sum(axis=1) + belief[:, np.abs(D) <= 1e-9].sum(axis=1) / 2, 9)
    winner = np.where((tied >= np.maximum(one, other)) | (preference == 0.5), 0, np.sign(one - other))
    beaten = _square(winner < 0, winner > 0, order, 0.0).sum(axis=1)
    return ItemFit(
        _square(preference, 1 - preference, order, 0.5),
        _square(tied, tied, order, 1.0),
        _square(sure, 1 - sure, order, 0.5),
        _short(min(max(1 - left, 0.0), 1.0)),
        [1 + int(count) for count in beaten],
    )


def _square(values: Floats, mirrored: Floats, order: Ints, diagonal: float) -> Floats:
    """Numbers of pairs in the item's own order (pairs,), and of the pairs turned round -> (k, k) in import order."""
    first, second = np.triu_indices(len(order), k=1)
    result = np.full((len(order), len(order)), diagonal)
    result[order[first], order[second]], result[order[second], order[first]] = values, mirrored
    return result
