"""Shares of yes and their paired differences, against published numbers and a closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import hypergeom

from preferences.stats.rates import rate, rate_difference, tango
from preferences.stats.significance import two_sample_permutation

COUNTS = st.integers(0, 12)


def test_rate_is_clopper_pearsons() -> None:
    """81 of 263: 0.2527 to 0.3676 (Newcombe 1998, Statistics in Medicine 17(8), table I, method 5)."""
    found = rate([1.0] * 81 + [0.0] * 182)
    assert found["mean"] == pytest.approx(81 / 263) and found["n"] == 263
    assert found["interval"] == pytest.approx([0.2527, 0.3676], abs=5e-5)
    assert rate([True])["standard_error"] is None
    with pytest.raises(ValueError, match="a list of 0 and 1 is needed"):
        rate([0.0, 0.5])


def test_tango_on_airways() -> None:
    """1 and 7 of 21 children (Bentur et al. 2009): -0.517 to -0.026 (Fagerland, Lydersen & Laake 2014, Statistics in
    Medicine 33(16)).
    """
    assert tango(1, 7, 21) == pytest.approx([-0.517, -0.026], abs=5e-4)


@given(COUNTS, COUNTS, COUNTS)
def test_tango_solves_its_quartic(b: int, c: int, same: int) -> None:
    """The closed form of Yang, Sun & Hardin 2012 (Statistics in Medicine 32(8)): the ends are roots of a quartic."""
    n = b + c + same
    if n == 0:
        return
    g, d = ndtri(0.975) ** 2, b - c
    quartic = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * ((b + c) / g + 1),
        n * d * (2 * (b + c) / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - (b + c)) / g,
    ]
    low, high = tango(b, c, n)
    scale = np.abs(quartic).max()
    assert np.polyval(quartic, [low, high]) / scale == pytest.approx([0, 0], abs=1e-6)
    assert -1 <= low <= d / n <= high <= 1
    assert tango(c, b, n) == pytest.approx([-high, -low])
    if b + c:  # it excludes 0 where McNemar's test does
        assert (low > 0 or high < 0) == (d**2 > g * (b + c))


def test_a_rare_thing_is_no_difference() -> None:
    """3 of 100 against none: McNemar's exact p is 2 / 2³."""
    found = rate_difference([1.0] * 3 + [0.0] * 97, [0.0] * 100)
    assert found["mean"] == pytest.approx(0.03) and found["p_value"] == pytest.approx(0.25)
    assert found["interval"][0] < 0 < found["interval"][1]
    same = rate_difference([1.0] * 30, [1.0] * 30)
    assert same["mean"] == 0.0 and same["p_value"] == 1.0 and same["interval"][1] == pytest.approx(0.1135, abs=5e-5)
    with pytest.raises(ValueError, match="a pair needs one of each"):
        rate_difference([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="there can't be more"):
        tango(3, 3, 5)


def test_dealing_out_wins_and_losses_is_fishers_exact_test() -> None:
    """18 of 30 against 60 of 150. Two-sided by the difference of means, the sum over all tables at least as far."""
    one, rest = [1.0] * 18 + [0.0] * 12, [1.0] * 60 + [0.0] * 90
    wins = np.arange(31)
    chances = hypergeom(180, 78, 30).pmf(wins)
    p = chances[np.abs(wins - 13) >= 5].sum()
    assert two_sample_permutation(one, rest) == pytest.approx(p, abs=4 * np.sqrt(p / 10_000))
    assert two_sample_permutation(rest, one) == pytest.approx(p, abs=4 * np.sqrt(p / 10_000))
