"""Wilson, Clopper-Pearson and what is built on them, against statsmodels, numbers by hand, and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from statsmodels.stats.proportion import proportion_confint

from preferences.stats.intervals import clopper_pearson, exact_mean, wilson

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_and_clopper_pearson_are_statsmodels(count, level):
    k, n = count
    assert wilson(k, n, level) == pytest.approx(proportion_confint(k, n, 1 - level, "wilson"), abs=1e-12)
    assert clopper_pearson(k, n, level) == pytest.approx(proportion_confint(k, n, 1 - level, "beta"), abs=1e-9)


def test_wilson_by_hand():
    # 8 of 10: (0.8 + 3.8415/20 ± 1.96 √(0.016 + 3.8415/400)) / (1 + 0.38415) = (0.99207 ± 0.31365) / 1.38415.
    assert wilson(8, 10) == pytest.approx([0.4901624, 0.9433178], abs=1e-6)


@given(counts)
def test_they_mirror_and_the_exact_one_covers_at_every_rate(count):
    k, n = count
    for interval in (wilson, clopper_pearson):
        low, high = interval(k, n)
        assert interval(n - k, n) == pytest.approx([1 - high, 1 - low], abs=1e-12)
        assert 0 <= low <= k / n <= high <= 1


@pytest.mark.parametrize("successes, n, level", [(-1, 5, 0.95), (6, 5, 0.95), (0, 0, 0.95), (1, 5, 1.0), (1, 5, 0.0)])
def test_what_is_no_share_is_refused(successes, n, level):
    for interval in (wilson, clopper_pearson):
        with pytest.raises(ValueError, match="successes go from 0 to n"):
            interval(successes, n, level)


def error(values):
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


@given(counts.filter(lambda count: count[1] > 1))
def test_of_wins_and_losses_exact_mean_is_clopper_pearson(count):
    k, n = count
    values = [1.0] * k + [0.0] * (n - k)
    assert exact_mean(k / n, error(values), n) == pytest.approx(clopper_pearson(k, n), abs=1e-9)


def test_exact_mean_with_ties_by_hand():
    # 30 wins, 20 ties, 10 losses of 60: mean 2/3; Σ (x - 2/3)² = 30/9 + 20/36 + 40/9 = 8 1/3; of wins and losses 40/3.
    # r = 5/8, n* = 60 · 62 / (60 · 5/8 + 2) = 3720 / 39.5 = 94.177.
    values = [1.0] * 30 + [0.5] * 20 + [0.0] * 10
    trials = 3720 / 39.5
    k = trials * 2 / 3
    expected = [beta.ppf(0.025, k, trials - k + 1), beta.ppf(0.975, k + 1, trials - k)]
    assert exact_mean(2 / 3, error(values), 60) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.sampled_from([0.0, 1 / 3, 0.5, 1.0]), min_size=2, max_size=60))
def test_exact_mean_mirrors_and_holds_the_mean(values):
    x = np.array(values)
    low, high = exact_mean(x.mean(), error(x), len(x))
    assert 0 <= low <= x.mean() + 1e-12 and x.mean() - 1e-12 <= high <= 1 and low < high
    turned = exact_mean((1 - x).mean(), error(1 - x), len(x))
    assert turned == pytest.approx([1 - high, 1 - low], abs=1e-7)


def test_exact_mean_refuses_what_is_none():
    for mean, standard_error, n in ((1.2, 0.1, 5), (0.5, -0.1, 5), (0.5, 0.1, 0)):
        with pytest.raises(ValueError, match="has no interval"):
            exact_mean(mean, standard_error, n)


@pytest.mark.parametrize("rate, ties", [(0.5, 0.9), (0.6, 0.3), (0.7, 0.0)])
def test_exact_mean_covers(rate, ties):
    # 4,000 studies of 50 prompts: the simulation's own error is 0.0034. benchmarks/coverage.py does it in full.
    chances = [rate - ties / 2, ties, 1 - rate - ties / 2]
    inside = 0
    for wins, even, losses in np.random.default_rng(3).multinomial(50, chances, size=4000):
        values = np.repeat([1.0, 0.5, 0.0], [wins, even, losses])
        low, high = exact_mean(values.mean(), error(values), 50)
        inside += low <= rate <= high
    assert inside / 4000 >= 0.95 - 3 * 0.0034
