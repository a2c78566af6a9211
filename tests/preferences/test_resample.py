"""The bootstrap's draws against scipy's, and against what is known of them exactly."""

import numpy as np
import pytest
from scipy.stats import binom, bootstrap

from preferences.stats import resample
from preferences.stats.resample import ratio_interval, resampled

DRAWS = 20_000


def ratio(sums, sizes, axis=-1):
    return sums.sum(axis=axis) / sizes.sum(axis=axis)


def by_scipy(sums, sizes, seed):
    result = bootstrap((sums, sizes), ratio, paired=True, n_resamples=DRAWS, method="BCa", batch=500, rng=seed)
    return list(result.confidence_interval)


def cases():
    rng = np.random.default_rng(0)
    skewed = rng.random(40) ** 3
    sizes = rng.integers(1, 6, 60).astype(float)
    return {
        "all values different": (skewed, np.ones(40)),
        "values that repeat": (rng.integers(0, 13, 300) / 12, np.ones(300)),
        "groups of several sizes": (rng.binomial(sizes.astype(int), 0.7).astype(float), sizes),
    }


@pytest.mark.parametrize("name", list(cases()))
def test_bca_is_scipys_within_the_error_of_its_draws(name):
    sums, sizes = cases()[name]
    theirs = np.array([by_scipy(sums, sizes, seed) for seed in range(6)])
    ours = np.array([ratio_interval(sums, sizes, resamples=DRAWS, seed=seed)[0] for seed in range(6)])
    assert ratio_interval(sums, sizes)[1] == "BCa"
    # The means of six differ by what six of either kind differ by: 5 standard errors, and a step of the grid.
    apart = np.sqrt((theirs.var(axis=0, ddof=1) + ours.var(axis=0, ddof=1)) / 6)
    assert (np.abs(theirs.mean(axis=0) - ours.mean(axis=0)) < 5 * apart + 1e-3 * np.ptp(theirs.mean(axis=0))).all()
    assert np.ptp(ours.mean(axis=0)) > 0.05, "intervals of no width would agree, too"


@pytest.mark.parametrize("by_value", [True, False])
def test_how_often_each_value_comes_is_binomial(monkeypatch, by_value):
    # 30 wins in 64: a resample's wins are binomial (64, 30/64), whether values or places are drawn.
    monkeypatch.setattr(resample, "DISTINCT", 16 if by_value else 1_000_000)
    wins = resampled(np.array([[1.0]] * 30 + [[0.0]] * 34), 40_000, seed=3)[:, 0]
    seen = np.bincount(wins.astype(int), minlength=65)[18:44] / 40_000
    assert np.abs(seen - binom.pmf(np.arange(18, 44), 64, 30 / 64)).max() < 5 * np.sqrt(0.1 * 0.9 / 40_000)


def test_draws_do_not_depend_on_cores_or_on_the_order_of_rows(monkeypatch):
    values = np.random.default_rng(1).random((3000, 1))
    many = resampled(values, 4000, seed=5)  # enough for threads
    monkeypatch.setattr(resample.os, "cpu_count", lambda: 1)
    assert (resampled(values[::-1], 4000, seed=5) == many).all()
    assert many.std() == pytest.approx(np.sqrt(3000 * values.var()), rel=0.05)


def test_where_bca_is_undefined_it_is_percentile():
    # All equal: the jackknife has no spread, so no acceleration.
    flat = ratio_interval(np.array([1.0, 1.0, 1.0]), np.ones(3), resamples=100)
    assert flat == ([1.0, 1.0], "percentile")
