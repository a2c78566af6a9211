"""Tests of chance and their corrections, against scipy and statsmodels, and numbers by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import permutation_test as scipys
from statsmodels.stats.multitest import multipletests

from preferences.stats.significance import (
    benjamini_hochberg,
    holm,
    permutation_test,
    sign_test,
    two_sample_permutation,
)

preferences = st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), max_size=60)
p_values = st.lists(st.floats(0, 1), max_size=20)


@given(preferences)
def test_sign_test_is_the_binomial_test_without_ties(values):
    result = sign_test(values)
    wins, losses = sum(v > 0.5 for v in values), sum(v < 0.5 for v in values)
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert result["p_value"] == pytest.approx(expected, rel=1e-9)
    assert (result["wins"], result["losses"], result["ties"]) == (wins, losses, len(values) - wins - losses)
    assert sign_test([1 - v for v in values])["p_value"] == result["p_value"]


def test_sign_test_by_hand():
    # 5 wins, 1 loss: 2 (1 + 6) / 64. Ties change nothing.
    alone = sign_test([1] * 5 + [0])
    assert alone["p_value"] == pytest.approx(14 / 64)
    assert sign_test([1] * 5 + [0] + [0.5] * 100) == {**alone, "ties": 100}
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        sign_test([1.5])


def mean(x, axis=-1):
    return np.mean(x, axis=axis)


@pytest.mark.parametrize("seed", range(4))
def test_paired_permutation_is_scipys_where_all_flips_are_made(seed):
    differences = np.random.default_rng(seed).choice([-1.0, -0.5, 0.0, 0.5, 1.0, 1.0], size=11)
    exact = scipys((differences,), mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert permutation_test(differences) == pytest.approx(exact, abs=1e-12)


def test_paired_permutation_by_hand():
    # 1, 2, 3: of the 8 sums ±1 ±2 ±3 only 6 and -6 are as far from 0.
    assert permutation_test([1, 2, 3]) == 2 / 8
    # Two clusters with sums 3 and 3: all four flips give 6, 0, 0, -6.
    assert permutation_test([1, 2, 3], ["a", "a", "b"]) == 2 / 4
    assert permutation_test([0.0, 0.0]) == 1.0
    assert permutation_test([0.1, 0.2, -0.3]) == 1.0, "0.1 + 0.2 - 0.3 is not 0 in floats, and all are as far as 0"


def test_drawn_flips_come_near_all_flips():
    differences = np.random.default_rng(5).normal(0.5, 1, size=12)
    exact = permutation_test(differences)
    assert 0.01 < exact < 0.2
    drawn = permutation_test(differences, draws=4000)  # 2^12 flips are more than 4,000
    assert drawn == pytest.approx(exact, abs=3 * np.sqrt(exact / 4000))
    assert permutation_test(np.ones(200)) == 1 / 10_001, "a sample of flips never gives 0"


def test_clusters_that_hang_together_are_not_many_facts():
    values = np.repeat([1.0, 1.0, 1.0, 1.0, -1.0], 40)
    assert permutation_test(values) < 0.001
    assert permutation_test(values, np.repeat(range(5), 40)) == 12 / 32  # |sum| ≥ 3 of five signs: 2 (1 + 5) of 32


@pytest.mark.parametrize("sizes", [(4, 6), (6, 4), (2, 9), (5, 5)])
def test_two_samples_are_scipys_where_all_ways_are_dealt(sizes):
    rng = np.random.default_rng(sum(sizes) + sizes[0])
    a, b = rng.choice([0.0, 0.5, 1.0], size=sizes[0]), rng.choice([0.0, 0.5, 1.0], size=sizes[1])

    def gap(x, y, axis=-1):
        return np.mean(x, axis=axis) - np.mean(y, axis=axis)

    # Two-sided by size of the gap, whatever the sizes of the groups; scipy's own doubles the smaller tail.
    exact = scipys(
        (a, b), lambda x, y, axis=-1: np.abs(gap(x, y, axis)).round(9), n_resamples=np.inf, alternative="greater"
    )
    assert two_sample_permutation(a, b) == pytest.approx(exact.pvalue, abs=1e-12)
    assert two_sample_permutation(b, a) == pytest.approx(exact.pvalue, abs=1e-12)


def test_two_samples_by_hand():
    # 0 0 against 1 1: of the six ways to deal two of four, two are as far.
    assert two_sample_permutation([0, 0], [1, 1]) == pytest.approx(2 / 6)
    assert two_sample_permutation([0.5] * 30, [0.5] * 50) == 1.0
    assert two_sample_permutation(np.zeros(40), np.ones(60)) == 1 / 10_001


def test_under_chance_p_is_below_a_twentieth_one_time_in_twenty():
    rng = np.random.default_rng(8)
    low = [
        [
            permutation_test(rng.normal(size=20), draws=200, seed=seed) <= 0.05,
            two_sample_permutation(rng.normal(size=15), rng.normal(size=25), draws=200, seed=seed) <= 0.05,
        ]
        for seed in range(1000)
    ]
    assert np.mean(low, axis=0) == pytest.approx([0.05, 0.05], abs=3 * np.sqrt(0.05 * 0.95 / 1000))


@pytest.mark.parametrize("seed", range(5))
def test_corrections_are_statsmodels(seed):
    rng = np.random.default_rng(seed)
    p = rng.choice([0.0, 0.001, 0.02, 0.2, 1.0, *rng.random(5) ** 3], size=4 * seed + 1)  # with ties
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)
    assert benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], abs=1e-12)
    assert holm([]) == benjamini_hochberg([]) == []


def test_corrections_by_hand():
    # Holm: 4 · 0.01, 3 · 0.02, 2 · 0.03, then never less. Benjamini-Hochberg: 4 · 0.01 / 1, … 4 · 0.5 / 4, never more.
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert benjamini_hochberg([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.04, 0.04])


@settings(max_examples=50)
@given(p_values, st.randoms())
def test_corrections_keep_the_order_and_only_raise(p, random):
    places = list(range(len(p)))
    random.shuffle(places)
    for correction in (holm, benjamini_hochberg):
        adjusted = correction(p)
        assert all(before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
        order = np.argsort(p, kind="stable")
        assert (np.diff(np.array(adjusted)[order]) >= 0).all()
        assert correction([p[place] for place in places]) == [adjusted[place] for place in places]
    assert all(strict >= mild for strict, mild in zip(holm(p), benjamini_hochberg(p), strict=True))


@pytest.mark.parametrize("call", [lambda: holm([1.1]), lambda: benjamini_hochberg([float("nan")])])
def test_what_is_no_p_value_is_refused(call):
    with pytest.raises(ValueError, match="p-value"):
        call()


@pytest.mark.parametrize("call", [lambda: permutation_test([]), lambda: two_sample_permutation([1.0], [])])
def test_no_values_are_refused(call):
    with pytest.raises(ValueError, match="at least one"):
        call()


def test_clusters_must_match():
    with pytest.raises(ValueError, match="each difference needs its cluster"):
        permutation_test([1, 2], ["a"])
