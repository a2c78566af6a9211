"""What raters said, as sums that items add: units and their values, who agrees with whom. Pure functions.

Of rankings a *unit* is a pair of responses i < j of one item, in import order; an answer's *value* on it is -1 (the
second is better), 0 (tie) or 1 (the first is better). Of ratings it is one response on one dimension, and the value is
the rating. Ranks are 1 = best, equal = tie; only their order counts.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from preferences.stats.coefficients import (
    Floats,
    Ints,
    cohen_kappa,
    fleiss_kappa,
    interval_alpha,
    kendall_w,
    nominal_alpha,
    ordinal_alpha,
    pairs_of,
    tau_b,
)

SIDES = np.array([-1.0, 0.0, 1.0])


def pair_values(ranks: Ints) -> Ints:
    """Ranks (..., k) -> values (..., k(k-1)/2) in {-1, 0, 1} on the pairs (0,1), (0,2), …, (k-2,k-1)."""
    first, second = pairs_of(ranks.shape[-1])
    return np.sign(ranks[..., second] - ranks[..., first])


def stack_answers(items: Iterable[Sequence[Sequence[int]]]) -> list[tuple[Ints, Ints]]:
    """Stack the items that have equally many answers m and responses k, so that numpy can take them at once.

    Returns (indices of the items (n,), ranks (n, m, k)) for each such shape; items with fewer than two answers are
    left out, since nothing can be compared there. Raises ValueError for ragged answers or fewer than two responses.
    """
    shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
    kept: list[Sequence[Sequence[int]]] = []
    for index, answers in enumerate(items):
        kept.append(answers)
        lengths = {len(ranks) for ranks in answers}
        if len(lengths) > 1 or min(lengths, default=2) < 2:
            raise ValueError(
                f"item {index}: rank lists of lengths {sorted(lengths)}; they must be equal, and at least 2"
            )
        if len(answers) >= 2:
            shapes[len(answers), lengths.pop()].append(index)
    return [(np.array(rows), np.array([kept[row] for row in rows], dtype=np.int64)) for rows in shapes.values()]


class Table(NamedTuple):
    """What items add to the coefficients of one scale: `sums` (items, D) sparse, of `coefficients_of`."""

    sums: Any
    values: Floats  # (C,) the values of the scale, in their order
    where: Ints  # (2, P) the pairs of values that some unit got both of


def table_of_ranks(stacks: Sequence[tuple[Ints, Ints]], items: int) -> Table:
    """The units of rankings, from `stack_answers`; `items` is how many rows there are to be."""
    return _table([(rows, pair_values(ranks) + 1) for rows, ranks in stacks], SIDES, items)


def table_of_ratings(ratings: Sequence[Sequence[Sequence[float]]]) -> Table:
    """The units of ratings on one dimension: for each item what each of some raters gave its responses.

    Items with fewer than two raters add nothing.
    """
    shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, given in enumerate(ratings):
        if len(given) >= 2:
            shapes[len(given), len(given[0])].append(index)
    stacks = [(np.array(rows), np.array([ratings[row] for row in rows], dtype=float)) for rows in shapes.values()]
    values = np.unique(np.concatenate([given.ravel() for _, given in stacks])) if stacks else np.zeros(1)
    return _table([(rows, np.searchsorted(values, given)) for rows, given in stacks], values, len(ratings))


def _table(stacks: Iterable[tuple[Ints, Ints]], values: Floats, items: int) -> Table:
    """Stacks of (items (n,), codes (n, m, units)), codes being places in `values`, as a Table."""
    count = len(values)
    added = Sums()
    differ: list[tuple[Ints, Ints, Floats]] = []
    for rows, codes in stacks:
        m, units = codes.shape[1:]
        one, other = pairs_of(m)
        low, high = np.minimum(codes[:, one], codes[:, other]), np.maximum(codes[:, one], codes[:, other])
        apart = low < high  # (n, pairs of answers, units)
        alike = (~apart).sum(axis=(1, 2))
        added.add(rows[:, None, None], codes, 1.0)
        added.add(rows[:, None, None], count + codes, 1 / m)
        for place, amount in enumerate((alike / len(one), alike, len(one) * units, units, 1.0)):
            added.add(rows, 2 * count + place, amount)
        keys = low[apart] * count + high[apart]
        differ.append((np.broadcast_to(rows[:, None, None], apart.shape)[apart], keys, np.full(len(keys), 1 / (m - 1))))
    met = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *(keys for _, keys, _ in differ)]))
    for places, keys, amounts in differ:
        added.add(places, 2 * count + 5 + np.searchsorted(met, keys), amounts)
    return Table(added.sparse(items, 2 * count + 5 + len(met)), values, np.array(np.divmod(met, count)))


def coefficients_of(table: Table, sums: Floats) -> dict[str, Floats]:
    """{name: (…)} of the coefficients that sums (…, D) of the table's rows give; `symmetrised` is for rankings only."""
    count = len(table.values)
    totals, shares, cells = sums[..., :count], sums[..., count : 2 * count], sums[..., 2 * count + 5 :]
    alike, equal, pairs, units, items = (sums[..., 2 * count + place] for place in range(5))
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = equal / pairs
    return {
        "raw": raw,
        "krippendorff_alpha_nominal": nominal_alpha(cells, totals),
        "krippendorff_alpha_ordinal": ordinal_alpha(cells, totals, table.where),
        "krippendorff_alpha_interval": interval_alpha(cells, totals, table.where, table.values),
        "krippendorff_alpha_symmetrised": nominal_alpha(2 * cells, totals + totals[..., ::-1]),
        "fleiss_kappa": fleiss_kappa(alike, shares),
        "units": units,
        "answers": totals.sum(axis=-1),
        "items": items,
    }


def sums_of_orders(stacks: Iterable[tuple[Ints, Ints]], items: int) -> Any:
    """Sums (items, 5) for `orders_of`, of the rankings of three responses or more."""
    added = Sums()
    for rows, ranks in stacks:
        if ranks.shape[2] >= 3:
            w, tau = kendall_w(ranks), tau_b(pair_values(ranks))
            columns = (
                np.nan_to_num(w),
                ~np.isnan(w),
                np.nan_to_num(tau).sum(axis=1),
                (~np.isnan(tau)).sum(axis=1),
                1.0,
            )
            for column, amounts in enumerate(columns):
                added.add(rows, column, amounts)
    return added.sparse(items, 5)


def orders_of(sums: Floats) -> dict[str, Floats]:
    """Mean Kendall's W over the items, mean tau-b over their pairs of raters."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"kendall_w": sums[..., 0] / sums[..., 1], "tau_b": sums[..., 2] / sums[..., 3], "items": sums[..., 4]}


def sums_of_raters(stacks: Iterable[tuple[Ints, Ints]], who: Sequence[Sequence[int]], raters: int, items: int) -> Any:
    """Sums (items, raters · 8) for `kappas_of`: each rater against the others of their items.

    `who` has the raters' numbers below `raters` of each item's answers.
    """
    added = Sums()
    for rows, ranks in stacks:
        people = np.array([who[row] for row in rows])  # (n, m)
        values = pair_values(ranks)
        own = np.stack([(values == side).sum(axis=2) for side in (-1, 0, 1)], axis=-1)  # (n, m, 3)
        others = (own.sum(axis=1, keepdims=True) - own) / (ranks.shape[1] - 1)
        same = sum(
            ((values == side) * ((values == side).sum(axis=1, keepdims=True) - 1)).sum(axis=2) for side in (-1, 0, 1)
        )
        _add_tables(added, rows[:, None], people, same / (ranks.shape[1] - 1), own, others)
    return added.sparse(items, 8 * raters)


def sums_of_pairs(
    stacks: Iterable[tuple[Ints, Ints]], who: Sequence[Sequence[int]], raters: int, items: int, enough: int
) -> tuple[Any, list[tuple[int, int]]]:
    """Sums (items, pairs · 8) for `kappas_of` of two raters, and who they are: all who share `enough` units or more."""
    found = []
    for rows, ranks in stacks:
        people = np.array([who[row] for row in rows])
        values = pair_values(ranks)
        own = np.stack([(values == side).sum(axis=2) for side in (-1, 0, 1)], axis=-1)
        for one, other in zip(*pairs_of(ranks.shape[1]), strict=True):
            turned = (people[:, one] > people[:, other])[:, None]
            low, high = np.minimum(people[:, one], people[:, other]), np.maximum(people[:, one], people[:, other])
            first = np.where(turned, own[:, other], own[:, one])
            second = np.where(turned, own[:, one], own[:, other])
            same = (values[:, one] == values[:, other]).sum(axis=1)
            found.append((rows, low * raters + high, same, first, second))
    if not found:
        return Sums().sparse(items, 0), []
    rows, keys, same, first, second = (np.concatenate(column) for column in zip(*found, strict=True))
    known, pair = np.unique(keys, return_inverse=True)
    shared = np.bincount(pair, weights=first.sum(axis=1)) >= enough
    kept, number = shared[pair], np.cumsum(shared) - 1
    added = Sums()
    _add_tables(added, rows[kept], number[pair[kept]], same[kept], first[kept], second[kept])
    pairs = [divmod(key, raters) for key in known[shared].tolist()]
    return added.sparse(items, 8 * len(pairs)), pairs


def _add_tables(added: "Sums", rows: Ints, number: Ints, same: Floats, first: Floats, second: Floats) -> None:
    added.add(rows, 8 * number, same)
    added.add(rows, 8 * number + 7, 1.0)
    for side in range(3):
        added.add(rows, 8 * number + 1 + side, first[..., side])
        added.add(rows, 8 * number + 4 + side, second[..., side])


def kappas_of(sums: Floats) -> dict[str, Floats]:
    """{name: (…, tables)} of sums (…, tables · 8)."""
    tables = sums.reshape(*sums.shape[:-1], -1, 8)
    same, one, other = tables[..., 0], tables[..., 1:4], tables[..., 4:7]
    units = one.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = same / units
    return {"raw": raw, "kappa": cohen_kappa(same, one, other), "units": units, "items": tables[..., 7]}


def spread(sums: Any, groups: Collection[Sequence[int]]) -> Any:
    """Sums (items, D) once for each group of items -> (items, groups · D), in the order of the groups."""
    width = sums.shape[1]
    added = Sums()
    for number, members in enumerate(groups):
        part = sums[np.asarray(members, dtype=np.int64)].tocoo()
        added.add(np.asarray(members, dtype=np.int64)[part.coords[0]], number * width + part.coords[1], part.data)
    return added.sparse(sums.shape[0], width * len(groups))


class Sums:
    """A sparse matrix in the making: amounts that are added up in cells."""

    def __init__(self) -> None:
        self._parts: list[list[Any]] = []

    def add(self, rows: Any, columns: Any, amounts: Any) -> None:
        """Add amounts in cells; the three are broadcast against each other."""
        self._parts.append([np.ravel(part) for part in np.broadcast_arrays(rows, columns, amounts)])

    def sparse(self, rows: int, columns: int) -> Any:
        from scipy.sparse import csr_array  # not at the top: an import of scipy takes a tenth of a second

        if not self._parts:
            return csr_array((rows, columns), dtype=np.float64)
        places, across, amounts = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        kept = amounts != 0
        made = csr_array((amounts[kept].astype(np.float64), (places[kept], across[kept])), shape=(rows, columns))
        made.sum_duplicates()
        return made
