"""What raters said, as arrays: each answer as what it says of every pair of its responses.

Answers and responses are put in an order that depends on nothing but what was said, so that what is computed from
them does not depend on the order in which they came, to the last bit.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TIE, ANY = 0, 4  # codes of what is said of a pair, positive where the first is better: 1-3 strength, 4 none given

GOLD = 10.0  # a right answer that is known counts as so many answers of raters with reliability 1
STRONG = (0.6, 0.25)  # shares of decided pairs with strength >= 2, >= 3; worth 20 answers


class Said(NamedTuple):
    """One rater's answer: ranks 1 = best, equal = tie; of the strength only the size counts, 1 to 3.

    `shown` are the numbers of the responses in the order on the screen, where it is known.
    """

    rater: str
    ranks: Sequence[int]
    strength: int | None = None
    shown: Sequence[int] | None = None


class Prepared(NamedTuple):
    order: Ints  # (k,): the item's responses in an order that depends on the answers only
    raters: list[str]
    ranks: Ints  # (m, k), in that order
    strengths: list[int]  # 0 where none is given
    places: Ints  # (m, k): where each response stood on the screen, all 0 where nobody knows
    gold: Ints | None  # (k,), in that order


class Heard(NamedTuple):
    """All that was said of pairs of responses, sorted by unit (a pair of an item), the answers of a unit by rater."""

    unit: Ints  # (n,)
    rater: Ints  # (n,)
    code: Ints  # (n,): -4 … 4
    share: Floats  # (n,): 2/k
    place: Ints  # (n,): 1 if the pair's first response was shown before its second, -1 after, 0 where nobody knows
    gold: Floats  # (units, 9): how often each code counts as said by a rater with reliability 1


def prepare(index: int, answers: Sequence[Said], gold: Sequence[int] | None) -> Prepared:
    """Sort answers by rater and responses by what was said of them: then every order of either gives the same bits."""
    ordered = sorted(answers, key=lambda said: said.rater)
    lengths = {len(said.ranks) for said in ordered} | ({len(gold)} if gold is not None else set())
    if not lengths:
        return Prepared(
            np.empty(0, dtype=np.int64),
            [],
            np.empty((0, 0), dtype=np.int64),
            [],
            np.empty((0, 0), dtype=np.int64),
            None,
        )
    if len(lengths) > 1 or min(lengths) < 2:
        raise ValueError(f"item {index}: rank lists of lengths {sorted(lengths)}; they must be equal, and at least 2")
    if len({said.rater for said in ordered}) < len(ordered):
        raise ValueError(f"item {index}: a rater answers it twice")
    right = [list(gold)] if gold is not None else []
    table = np.array(right + [list(said.ranks) for said in ordered], dtype=np.int64)
    places = np.array([_places(said) for said in ordered], dtype=np.int64).reshape(-1, table.shape[1])
    order = np.lexsort(np.concatenate([table, places])[::-1])
    table, places = table[:, order], places[:, order]
    strengths = [min(abs(said.strength), 3) if said.strength else 0 for said in ordered]
    known = table[0] if right else None
    return Prepared(order, [said.rater for said in ordered], table[len(right) :], strengths, places, known)


def _places(said: Said) -> list[int]:
    if said.shown is None:
        return [0] * len(said.ranks)
    return [place for _, place in sorted((response, place) for place, response in enumerate(said.shown))]


def hear(prepared: Sequence[Prepared], names: Mapping[str, int]) -> tuple[Heard, Ints]:
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
        first, second = np.triu_indices(k, k=1)
        places = np.array([prepared[row].places for row in rows]).reshape(-1, k)
        place = np.sign(places[:, second] - places[:, first])
        codes, share = _codes(ranks, strengths), np.full(unit.shape, 2 / k)
        parts.append((unit.ravel(), np.repeat(who, pairs), codes.ravel(), share.ravel(), place.ravel()))
    if not parts:
        none = np.empty(0, dtype=np.int64)
        return Heard(none, none, none, np.empty(0), none, gold), starts
    unit, rater, code, share, place = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(unit, kind="stable")
    return Heard(unit[order], rater[order], code[order], share[order], place[order], gold), starts


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


def strong_shares(heard: Heard) -> tuple[float, float]:
    """Shares of decided pairs with strength >= 2 and >= 3, among those with any."""
    sizes = np.abs(heard.code)
    told = ((sizes > 0) & (sizes < ANY)).sum()
    two, three = ((sizes >= low) & (sizes < ANY) for low in (2, 3))
    more = [(20 * usual + which.sum()) / (20 + told) for usual, which in zip(STRONG, (two, three), strict=True)]
    return round(float(more[0]), 9), round(float(more[1]), 9)
