"""Many verdicts on a prompt as one number: orders first, then samples, then judges. Pure functions."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Cell(NamedTuple):
    """What one judge or rater says of one prompt (its number), all orders and samples together."""

    prompt: int
    who: Any
    value: float


def nested_means(
    values: ArrayLike,
    prompt: Sequence[int],
    who: Sequence[Hashable],
    sample: Sequence[int],
    order: Sequence[int],
    prompts: int,
) -> tuple[Floats, list[Cell]]:
    """Means (prompts,) of values (m,), and the means of each judge on each prompt.

    All arguments but the last are (m,): which prompt (0 to prompts - 1), judge, sample and order a value belongs to.
    Values that nothing tells apart are averaged first, then orders, then samples, then judges, each level with equal
    weights. NaN is a value that is not known, and is left out of its mean; a prompt without any is NaN. A mean within
    1e-12 of 0.5 is 0.5, so that a tie is one however it comes about. The order of the values changes nothing, to the
    last bit.
    """
    x = np.asarray(values, dtype=np.float64)
    names = sorted(set(who), key=repr)
    number = {name: place for place, name in enumerate(names)}
    keys = np.array([prompt, [number[name] for name in who], sample, order], dtype=np.int64).reshape(4, -1)
    known = ~np.isnan(x)
    x, keys = x[known], keys[:, known]
    sorting = np.lexsort((x, *keys[::-1]))
    x, keys = x[sorting], keys[:, sorting]
    cells: list[Cell] = []
    for level in (4, 3, 2, 1):
        x, keys = _means_of_equal(x, keys[:level])
        if level == 2:
            cells = [
                Cell(place, names[name], value)
                for place, name, value in zip(keys[0].tolist(), keys[1].tolist(), _ties(x).tolist(), strict=True)
            ]
    means = np.full(prompts, np.nan)
    means[keys[0]] = _ties(x)
    return means, cells


def _means_of_equal(values: Floats, keys: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """Means over runs of equal keys (levels, m), which are sorted, and the keys of each run."""
    if not len(values):
        return values, keys
    begins = np.flatnonzero(np.r_[True, (keys[:, 1:] != keys[:, :-1]).any(axis=0)])
    sizes = np.diff(np.r_[begins, len(values)])
    return np.add.reduceat(values, begins) / sizes, keys[:, begins]


def _ties(values: Floats) -> Floats:
    return np.where(np.abs(values - 0.5) < 1e-12, 0.5, values)
