"""How far each rater can be trusted: the part of the model of consensus.py that learns about raters.

Messages go to and fro between raters and pairs of responses: the belief about a pair's difference of scores from the
other raters' answers says how far an answer looks like judgement, and the belief about a rater from their other
answers says how much this one counts (belief propagation; Liu, Peng & Ihler 2012, NIPS). Here each pair of a ranking is
a unit of its own; how its pairs hang together is for consensus.py.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from preferences.stats.heard import TIE, Floats, Heard, Ints

D = np.linspace(-4.8, 4.8, 49)  # score differences over their prior standard deviation, √2 τ
NORMAL = np.exp(-(D**2) / 2) / np.exp(-(D**2) / 2).sum()
RHO = np.linspace(0, 1, 41)  # edges of the cells in which a rater's reliability may lie …
TIES = np.linspace(0, 1, 33) ** 2  # … and their share of ties
CUTS = np.array([0.002, 0.01, 0.03, 0.06, 0.1, 0.15, 0.22, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.995])
RHO_PRIOR, TIES_PRIOR = (0.78, 0.7), (0.12, 1.5)  # mean over raters: median, and standard deviation of its logit
FIRST = 2.0  # answers out of habit that a rater's leaning to neither place is worth beforehand
SPREAD, SPREAD_SD = 4.0, 0.35  # √2 τ: median, and standard deviation of its logarithm


class Rater(NamedTuple):
    reliability: float  # ρ: posterior mean; 0 = a coin, 1 = their own judgement each time
    interval: tuple[float, float]  # 95%, of the posterior
    answers: int
    ties: float  # the share of pairs that they tie: posterior mean
    first: float = 0.0  # of what they say out of habit, how much oftener what was shown first wins: from -1 to 1


class Parameters(NamedTuple):
    """What `posterior` needs beside the raters."""

    spread: float  # √2 τ: prior standard deviation of a difference of scores, in units of the logistic noise
    reliability: float  # mean over raters, for a rater nobody knows
    ties: float  # mean share of ties, of the rater whose preference is told, and of one nobody knows
    strong: tuple[float, float]  # shares of decided pairs with strength >= 2 and >= 3


def _logistic(x: Floats) -> Floats:
    return (1 + np.tanh(x / 2)) / 2


def tables(ties: Floats, spread: float, strong: tuple[float, float]) -> tuple[Floats, Floats]:
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


def sums(values: Floats, groups: Ints, count: int) -> Floats:
    """Sum the rows of values (n, c) by their group (n,), which is sorted -> (count, c)."""
    result = np.zeros((count, values.shape[1]))
    if len(groups):
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        result[groups[starts]] = np.add.reduceat(values, starts, axis=0)
    return result


def normalised(logs: Floats) -> Floats:
    result = np.exp(logs - logs.max(axis=1, keepdims=True))
    return result / result.sum(axis=1, keepdims=True)


class Learnt(NamedTuple):
    reliability: Floats  # (raters,); so are ties and first
    intervals: Floats  # (raters, 2)
    ties: Floats
    first: Floats
    spread: float
    pool: tuple[float, float]  # means over raters: reliability, ties


def learn(heard: Heard, raters: int, strong: tuple[float, float]) -> Learnt:
    """Belief propagation between units and raters."""
    units, n = len(heard.gold), len(heard.code)
    by_rater = np.argsort(heard.rater, kind="stable")
    code, tied = heard.code + 4, heard.code == TIE

    # 1. How often each rater ties. Their pairs alone say it, since habit and judgement tie equally often.
    counts = [np.bincount(heard.rater, heard.share * which, raters) for which in (tied, ~tied)]
    grid = (TIES[1:] + TIES[:-1]) / 2
    yes, no = counts[0][:, None].astype(float), counts[1][:, None].astype(float)
    likely = yes * np.log(grid) + no * np.log(1 - grid)
    pool = _pool(likely, TIES, *TIES_PRIOR)
    ties, mean_ties = normalised(likely + np.log(pool)) @ grid, float(pool @ grid)
    but = [normalised(likely - np.log(one) + np.log(pool)) @ grid for one in (grid, 1 - grid)]
    shares = np.where(tied, but[0][heard.rater], but[1][heard.rater])  # of the rater, from their other pairs
    node = np.clip(np.searchsorted(CUTS, shares) - 1, 0, len(CUTS) - 2)
    part = np.clip((shares - CUTS[node]) / (CUTS[node + 1] - CUTS[node]), 0, 1)

    def said(spread: float, rows: Any = slice(None)) -> tuple[Floats, Floats]:
        """What judgement (rows, D) and habit (rows,) give to what was said."""
        own, habit = tables(CUTS, spread, strong)
        at, low, up = code[rows], node[rows], part[rows]
        judged = own[at, low] * (1 - up[:, None]) + own[at, low + 1] * up[:, None]
        return judged, habit[at, low] * (1 - up) + habit[at, low + 1] * up

    def anchors(spread: float) -> Floats:
        own, _ = tables(np.array([mean_ties]), spread, strong)
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
        told = sums(logs, heard.unit[some], units)[plain] + np.log(NORMAL)
        return _log_sum(told).sum() - np.log(value / SPREAD) ** 2 / (2 * SPREAD_SD**2)

    side = np.sign(code - 4) * heard.place  # 1: what was shown first is said to be better
    first = np.zeros(raters)
    for step in range(30):
        if step and n:
            climbed = _climb(height, spread, 0.4 / step**0.5)
            rho, spread = _along(rho, spread, climbed), climbed
        judged, habit = said(spread)
        habit = habit * (1 + side * first[heard.rater])
        logs = np.log(rho[:, None] * judged + ((1 - rho) * habit)[:, None])
        told = sums(logs, heard.unit, units) + anchors(spread)
        others = normalised(told[heard.unit] - logs)
        own = np.einsum("nd,nd->n", others, judged)
        guessed = (1 - rho) * habit / ((1 - rho) * habit + rho * own) * heard.share
        first = np.bincount(heard.rater, guessed * side, raters) / (FIRST + np.bincount(heard.rater, guessed, raters))
        ratio = np.log(habit[:, None] + (own - habit)[:, None] * grid) * heard.share[:, None]
        likely = sums(ratio[by_rater], heard.rater[by_rater], raters)
        pool = _pool(likely, RHO, *RHO_PRIOR)
        likely += np.log(pool)
        before, means = means, normalised(likely) @ grid
        rho = normalised(likely[heard.rater] - ratio) @ grid
        if np.abs(means - before).max(initial=0) < 1e-3:
            break
    intervals = _intervals(normalised(likely))
    return Learnt(means, intervals, ties, first, spread, (float(pool @ grid), mean_ties))


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
    return normalised((prior[:, 0] + fits)[None])[0] @ beta


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
