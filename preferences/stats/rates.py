"""Shares of yes among yes and no, and how two of them differ on the same units. Pure functions on arrays.

Not by the bootstrap: where something is rare (no refusal by the one, three of a hundred by the other) it draws only
what was seen, and finds a difference where an exact test finds none.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from preferences.stats.intervals import LEVEL, clopper_pearson
from preferences.stats.significance import sign_test

_STEPS = 60  # halvings of [-1, 1]: far below the last bit that is printed


def rate(values: ArrayLike, level: float = LEVEL) -> dict[str, Any]:
    """The mean of values (n,) of 0 and 1 with Clopper & Pearson's interval: mean, interval, n, standard_error (None for
    n = 1).

    That interval is exact; Wilson's covers as often as it says on average over rates only, and what is counted here is
    rare.

    Raises ValueError for other values, and for none.
    """
    x = _yes_or_no(values)
    share, n = float(x.mean()), len(x)
    error = float(x.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return {"mean": share, "interval": clopper_pearson(float(x.sum()), n, level), "n": n, "standard_error": error}


def rate_difference(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> dict[str, Any]:
    """mean(a) - mean(b) of 0 and 1 on the same units (n,): mean, interval, n, standard_error, p_value.

    The interval is Tango's (see `tango`), p that of the exact McNemar test: the sign test of the units that differ.
    Raises ValueError for other values, for none, and for lists of different length.
    """
    left, right = _yes_or_no(a), _yes_or_no(b)
    if left.shape != right.shape:
        raise ValueError(f"a has {len(left)} values and b has {len(right)}; a pair needs one of each")
    only_a, only_b, n = int((left > right).sum()), int((left < right).sum()), len(left)
    difference = left - right
    return {
        "mean": float(difference.mean()),
        "interval": tango(only_a, only_b, n, level),
        "n": n,
        "standard_error": float(difference.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
        "p_value": sign_test(0.5 + difference / 2)["p_value"],
    }


def tango(only_a: int, only_b: int, n: int, level: float = LEVEL) -> list[float]:
    """Tango's score interval (1998, Statistics in Medicine 17(8)) of the difference of two shares on the same n units,
    of which `only_a` are yes for the first alone and `only_b` for the second alone.

    All δ with |b - c - n δ| ≤ z √(n (2 q + δ (1 - δ))), where q is the likeliest share of c given δ: the larger root of
    2n q² + ((2n - b + c) δ - b - c) q - c δ (1 - δ) = 0. At δ = 0 this is McNemar's test. Raises ValueError unless
    b + c ≤ n.
    """
    b, c = only_a, only_b
    if not (b >= 0 and c >= 0 and n > 0 and b + c <= n and 0 < level < 1):
        raise ValueError(f"{b} and {c} of {n} units differ, at level {level:g}; there can't be more than there are")
    z = float(ndtri((1 + level) / 2))
    estimate = (b - c) / n
    return [_end(b, c, n, z, -1.0, estimate), _end(b, c, n, z, 1.0, estimate)]


def _end(b: int, c: int, n: int, z: float, far: float, near: float) -> float:
    """The last δ between the estimate (`near`) and `far` that the test does not reject."""
    if near == far:
        return far
    inside, outside = near, far
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        linear = (2 * n - b + c) * middle - b - c
        root = np.sqrt(max(linear**2 + 8 * n * c * middle * (1 - middle), 0.0))
        spread = n * (2 * (root - linear) / (4 * n) + middle * (1 - middle))
        if abs(b - c - n * middle) <= z * np.sqrt(max(spread, 0.0)):
            inside = middle
        else:
            outside = middle
    return float(inside)


def _yes_or_no(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isin(x, (0.0, 1.0)).all():
        raise ValueError(f"values of shape {x.shape}; a list of 0 and 1 is needed, of at least one")
    return x
