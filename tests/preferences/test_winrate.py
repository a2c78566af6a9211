"""Win rates and intervals against scipy, textbooks, numbers worked by hand, and simulated coverage."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, sem

from preferences.stats.intervals import exact_mean
from preferences.stats.winrate import accuracy, mean_interval, paired_difference, smallest_detectable, win_rate


def test_fields_by_hand():
    # 45 wins, 9 ties, 10 losses: (45 + 4.5) / 64. Σ (x - ½)² = 55 / 4, so s² = (55/4 + 1/4) / 65 = 14 / 65.
    values = [1.0] * 45 + [0.5] * 9 + [0.0] * 10
    result = win_rate(values)
    assert (result["n"], result["ties"], result["level"]) == (64, 9, 0.95)
    assert result["win_rate"] == 49.5 / 64
    assert result["standard_error"] == pytest.approx(sem(values))
    assert result["method"] == "exact over prompts (Clopper-Pearson at the effective number of prompts)"
    assert result["interval"] == pytest.approx(exact_mean(49.5 / 64, sem(values), 64))
    # Both lie near the normal interval, 0.773 ± 1.96 * 0.0477 = [0.680, 0.867].
    for low, high in (result["interval"], result["bootstrap_interval"]):
        assert low == pytest.approx(0.680, abs=0.02) and high == pytest.approx(0.867, abs=0.02)
    expected = 0.5 + (norm.ppf(0.975) + norm.ppf(0.8)) * np.sqrt(14 / 65) / 8
    assert result["smallest_detectable"] == pytest.approx(expected)


def test_same_seed_same_interval_and_level_widens():
    values = np.random.default_rng(0).random(50)
    assert win_rate(values) == win_rate(list(values))
    assert win_rate(values, level=0.99)["interval"][0] < win_rate(values)["interval"][0]


def test_smallest_detectable():
    # Without ties s = ½ whatever the wins; n = 784 is the textbook sample for 0.5 -> 0.55 (2.8016 * 0.5 / 28 = 0.05).
    assert smallest_detectable([1.0] * 500 + [0.0] * 284) == pytest.approx(0.55003, abs=1e-5)
    # Its power, by simulation: at that true rate a two-sided z test rejects in 80% of samples.
    rng = np.random.default_rng(0)
    wins = rng.binomial(784, 0.55003, size=20_000) / 784
    assert (np.abs(wins - 0.5) > 1.96 * 0.5 / 28).mean() == pytest.approx(0.80, abs=0.015)
    # Seven prompts: 0.5 + 2.8 * 0.5 / √7 = 1.03 is no rate.
    assert smallest_detectable([1.0] * 7) is None


@pytest.mark.parametrize("n", [1, 5, 64])
def test_all_wins_and_all_losses_have_clopper_pearsons_interval(n):
    exact = binomtest(n, n).proportion_ci(0.95, method="exact")
    result = win_rate([1.0] * n)
    assert result["interval"] == pytest.approx([exact.low, 1.0])
    assert "exact" in result["method"]
    assert win_rate([0.0] * n)["interval"] == pytest.approx([0.0, 1 - exact.low])


def test_all_ties_leave_room_on_both_sides():
    # At most 1 - 0.025^(1/64) = 5.6% of prompts would differ, and could all be wins, or all losses.
    share = 1 - 0.025 ** (1 / 64)
    assert win_rate([0.5] * 64)["interval"] == pytest.approx([0.5 - share / 2, 0.5 + share / 2])


@pytest.mark.parametrize("values", [[], [1.2], [-0.1], [float("nan")], [[0.5]]])
def test_refuses_what_is_no_preference(values):
    with pytest.raises(ValueError):
        win_rate(values)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1)), min_size=1, max_size=30))
def test_any_preferences_give_an_interval_within_bounds_that_mirrors(values):
    result = win_rate(values, resamples=200)
    json.dumps(result, allow_nan=False)
    low, high = result["interval"]
    assert 0 <= low <= high <= 1
    assert high > low
    mirrored = win_rate([1 - value for value in values], resamples=200)
    assert mirrored["win_rate"] == pytest.approx(1 - result["win_rate"])
    for name in ("interval", "bootstrap_interval"):
        if result[name] is not None:
            assert mirrored[name] == pytest.approx([1 - result[name][1], 1 - result[name][0]], abs=1e-6)
    assert mirrored["smallest_detectable"] == (
        None if result["smallest_detectable"] is None else pytest.approx(result["smallest_detectable"])
    )


def test_intervals_cover_the_true_rate():
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(300):
        low, high = win_rate((rng.random(64) < 0.8).astype(float), resamples=500)["interval"]
        inside += low <= 0.8 <= high
    assert 0.91 <= inside / 300 <= 0.99


def test_mean_interval():
    values = np.random.default_rng(2).exponential(100, size=80)
    result = mean_interval(values)
    assert result["mean"] == pytest.approx(values.mean())
    assert result["standard_error"] == pytest.approx(sem(values))
    assert result["n"] == 80
    low, high = result["interval"]
    assert high - low == pytest.approx(2 * 1.96 * sem(values), rel=0.1)
    assert high - result["mean"] > result["mean"] - low  # skewed to the right, and so is the interval
    assert mean_interval([3.0]) == {"mean": 3.0, "interval": None, "n": 1, "standard_error": None}
    assert mean_interval([3.0, 3.0])["interval"] == [3.0, 3.0]


def test_accuracy_over_pairs():
    result = accuracy([True, True, False, True])
    assert result["accuracy"] == 0.75
    assert (result["n"], result["groups"], result["method"]) == (4, None, "bootstrap over pairs (BCa)")
    assert accuracy([1, 0.5, 0.5, 0])["accuracy"] == 0.5


def test_accuracy_over_groups_is_wider_when_groups_hang_together():
    # 30 groups of 10 pairs that are all right or all wrong: 30 facts, not 300.
    right = np.repeat(np.random.default_rng(4).random(30) < 0.7, 10)
    groups = np.repeat([f"debate {i}" for i in range(30)], 10)
    alone, grouped = accuracy(right), accuracy(right, groups)
    assert grouped["accuracy"] == alone["accuracy"]
    assert (grouped["n"], grouped["groups"]) == (300, 30)
    # With equal groups the cluster-robust error is that of the group means: √10 wider but for (n-1)/n.
    assert grouped["standard_error"] == pytest.approx(sem(right[::10].astype(float)))
    width, narrow = np.ptp(grouped["interval"]), np.ptp(alone["interval"])
    assert width / narrow == pytest.approx(np.sqrt(10), rel=0.15)


def test_one_group_says_next_to_nothing():
    low, high = accuracy([1, 1, 1, 0], ["a"] * 4)["interval"]
    assert low < 0.05 and high > 0.95


def test_groups_must_match():
    with pytest.raises(ValueError, match="group"):
        accuracy([1, 0], ["a"])


def test_paired_difference_by_hand():
    result = paired_difference([1, 1, 0, 1], [0, 1, 0, 0])  # differences 1, 0, 0, 1
    assert result["mean"] == 0.5
    assert result["standard_error"] == pytest.approx(sem([1, 0, 0, 1]))
    assert result["n"] == 4
    low, high = result["interval"]
    assert 0 <= low < 0.5 < high <= 1
    assert paired_difference([1, 1, 0, 1], [0, 1, 0, 0], ["a", "a", "b", "b"])["standard_error"] == 0.0
    with pytest.raises(ValueError, match="a pair needs one of each"):
        paired_difference([1, 2], [1])
