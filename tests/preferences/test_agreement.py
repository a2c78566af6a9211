"""Agreement against published examples, scipy, and numbers worked by hand."""

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare, kendalltau

from preferences.stats.agreement import agreement, disagreements, kendall_w, nominal_alpha, pair_values, tau_b

FIRST, SECOND, TIE = [1, 2], [2, 1], [1, 1]


def alpha_of(raters: list[list[int | None]]) -> float:
    """Alpha of a table raters x units, through our two functions; None = no answer."""
    categories = sorted({value for row in raters for value in row if value is not None})
    units = [[row[u] for row in raters] for u in range(len(raters[0]))]
    counts = np.array([[unit.count(c) for c in categories] for unit in units], dtype=float)
    counts = counts[counts.sum(axis=1) >= 2]
    return float(nominal_alpha(disagreements(counts).sum(), counts.sum(axis=0)))


def test_alpha_of_krippendorffs_own_examples():
    # Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": A (binary, alpha = 0.095) and
    # C (nominal, four observers, missing values, alpha = 0.743). The PyPI package krippendorff 0.8 gives the same.
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert alpha_of([meg, owen]) == pytest.approx(0.09523809523809534, abs=1e-12)
    _ = None
    four = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
    assert alpha_of(four) == pytest.approx(0.743421052631579, abs=1e-12)


def test_agreement_reads_krippendorffs_binary_example_from_rankings():
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    facts = agreement([[[FIRST, SECOND][a], [FIRST, SECOND][b]] for a, b in zip(meg, owen, strict=True)])
    assert facts["krippendorff_alpha_nominal"] == pytest.approx(0.09523809523809534, abs=1e-12)
    assert facts["raw"] == 0.6  # units 2, 4, 5, 7, 8, 10
    assert (facts["units"], facts["raters_per_unit"]) == (10, 2.0)
    # Both orientations: 20 units, 2 x 8 ordered disagreements; 20 values of each side in 40:
    # 1 - 39 * 16 / (40² - 2 * 20²) = 1 - 624 / 800
    assert facts["krippendorff_alpha_symmetrised"] == pytest.approx(1 - 624 / 800, abs=1e-12)
    assert facts["kendall_w"] is None and facts["tau_b"] is None
    low, high = facts["krippendorff_alpha_nominal_interval"]
    assert low < 0.095 < high


def test_ties_and_ragged_numbers_of_answers_by_hand():
    # Unit 1: first, first, tie; unit 2: second, second; unit 3: a single answer, which compares with nothing.
    facts = agreement([[FIRST, FIRST, TIE], [SECOND, SECOND], [FIRST]])
    # Pairs of answers: 3 + 1, of which 1 + 1 agree. Units with two answers: 2, with 5 answers.
    assert facts["raw"] == 0.5
    assert (facts["units"], facts["raters_per_unit"]) == (2, 2.5)
    # Off-diagonal: unit 1 (9 - 4 - 1) / 2 = 2. Totals first 2, tie 1, second 2: 1 - 4 * 2 / (25 - 9) = 0.5
    assert facts["krippendorff_alpha_nominal"] == pytest.approx(0.5)
    # Symmetrised: 10 values, 4 first, 2 tie, 4 second, off-diagonal 4: 1 - 9 * 4 / (100 - 36)
    assert facts["krippendorff_alpha_symmetrised"] == pytest.approx(1 - 36 / 64)


def test_kendall_w_against_scipys_friedman_and_tau_b_against_scipys_kendalltau():
    rng = np.random.default_rng(1)
    ranks = rng.integers(1, 5, size=(20, 4, 5))
    values = pair_values(ranks)
    for item in range(20):
        # W = chi² / (m (k - 1)), with scipy's tie-corrected Friedman statistic
        chi2 = friedmanchisquare(*ranks[item].T).statistic
        assert kendall_w(ranks)[item] == pytest.approx(chi2 / (4 * 4), abs=1e-12)
        expected = [kendalltau(ranks[item, a], ranks[item, b]).statistic for a in range(4) for b in range(a + 1, 4)]
        np.testing.assert_allclose(tau_b(values)[item], expected, atol=1e-12)


def test_means_over_items_with_three_responses():
    # Item 1: W = 1, tau = 1. Item 2: opposite orders, W = 0, tau = -1. The pair of two responses doesn't enter.
    facts = agreement([[[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]], [FIRST, SECOND]])
    assert facts["kendall_w"] == pytest.approx(0.5)
    assert facts["tau_b"] == pytest.approx(0.0)


@pytest.mark.parametrize("items", [[], [[]], [[FIRST]], [[FIRST], [[1, 2, 3]]]])
def test_nothing_to_compare_is_null(items):
    facts = agreement(items)
    assert facts["units"] == 0
    assert all(value is None for key, value in facts.items() if key != "units")


def test_no_variation_is_null_and_symmetrised_it_is_one():
    facts = agreement([[FIRST, FIRST], [FIRST, FIRST]])
    assert facts["raw"] == 1.0
    assert facts["krippendorff_alpha_nominal"] is None
    assert facts["krippendorff_alpha_nominal_interval"] is None
    assert facts["krippendorff_alpha_symmetrised"] == 1.0


@pytest.mark.parametrize("answers", [[[1, 2], [1, 2, 3]], [[1], [1]]])
def test_ragged_answers_are_refused(answers):
    with pytest.raises(ValueError, match="item 1"):
        agreement([[FIRST, SECOND], answers])


def ranked(k: int):
    return st.lists(st.integers(1, k), min_size=k, max_size=k)


ITEMS = st.lists(st.integers(2, 4).flatmap(lambda k: st.lists(ranked(k), max_size=4)), max_size=8)


@given(ITEMS, st.data())
def test_nothing_depends_on_who_or_which_came_first(items, data):
    facts = agreement(items, resamples=20)
    json.dumps(facts, allow_nan=False)
    orders = [data.draw(st.permutations(range(len(item[0])))) if item else [] for item in items]
    shuffled = [
        data.draw(st.permutations([[ranks[i] for i in order] for ranks in item]))
        for item, order in zip(items, orders, strict=True)
    ]
    other = agreement(data.draw(st.permutations(shuffled)), resamples=20)
    for key in ("raw", "krippendorff_alpha_symmetrised", "kendall_w", "tau_b", "units", "raters_per_unit"):
        assert facts[key] == (None if other[key] is None else pytest.approx(other[key], abs=1e-9))


@given(ITEMS)
def test_bounds(items):
    facts = agreement(items, resamples=20)
    for key, low in (("raw", 0), ("krippendorff_alpha_symmetrised", -1), ("kendall_w", 0), ("tau_b", -1)):
        assert facts[key] is None or low - 1e-9 <= facts[key] <= 1 + 1e-9


def test_a_large_project_takes_seconds():
    rng = np.random.default_rng(0)
    items = rng.choice([[1, 2], [2, 1], [1, 1]], size=(12_000, 5)).tolist()
    start = time.process_time()
    agreement(items)
    assert time.process_time() - start < 3
