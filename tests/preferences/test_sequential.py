"""Anytime intervals: the public confseq package's wealth, its properties, and coverage under daily looking."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preferences.stats.intervals import clopper_pearson, wilson
from preferences.stats.sequential import BETS, WEIGHTS, anytime_interval, confidence_sequence, ends_of_counts

shares = st.lists(st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1)), min_size=1, max_size=40)


def test_ends_are_where_confseqs_wealth_passes_its_limit():
    # confseq at 70b1ef3: diversified_betting_mart(x, m, [b / m for b in BETS], [b / (1 - m) for b in BETS],
    # lambdas_weights=WEIGHTS, trunc_scale=1), theta=1 for the lower end and 0 for the upper; brentq where it is 40.
    values = [1, 1, 0, 1, 0.5, 1, 0, 0.5, 1, 1] * 8
    sequence = confidence_sequence(values)
    assert sequence[0] == pytest.approx([0.006379589239506132, 1.0], abs=1e-9)
    assert sequence[9] == pytest.approx([0.24885271953586083, 0.9540589369064545], abs=1e-9)
    assert sequence[39] == pytest.approx([0.47497145824004894, 0.8634075706278054], abs=1e-9)
    assert sequence[79] == pytest.approx([0.5456219271194741, 0.8232679557838218], abs=1e-9)
    # Its own hedged_cs gives (0.560, 0.830) for all 80 and dKelly_cs (0.551, 0.829), on a grid of thousandths.
    assert sequence[79] == pytest.approx([0.551, 0.829], abs=0.01)


def wealth(values, mean):
    """The definition, one factor at a time."""
    return sum(
        weight * np.prod([1 - bet + bet * value / mean for value in values])
        for bet, weight in zip(BETS, WEIGHTS, strict=True)
    )


@given(shares)
def test_at_the_ends_the_wealth_by_its_definition_is_at_most_the_limit(values):
    low, high = anytime_interval(values)
    x = np.array(values)
    for end, side in ((low, x), (1 - high, 1 - x)):
        if end > 0:
            # Of halves, thirds, … it is the limit itself; values in between are taken to the safe side.
            assert wealth(side, end) >= 2 / 0.05 * (1 - 1e-6)
    known = np.round(x * 12) / 12
    low, _ = anytime_interval(known)
    assert low == 0 or wealth(known, low) == pytest.approx(2 / 0.05, rel=1e-6)


@settings(max_examples=60)
@given(shares, st.randoms())
def test_it_mirrors_holds_the_mean_and_does_not_know_the_order(values, random):
    low, high = anytime_interval(values)
    assert 0 <= low <= np.mean(values) <= high <= 1
    assert anytime_interval([1 - v for v in values]) == pytest.approx([1 - high, 1 - low], abs=1e-9)
    shuffled = list(values)
    random.shuffle(shuffled)
    assert anytime_interval(shuffled) == pytest.approx([low, high], abs=1e-9)
    assert confidence_sequence(values)[-1] == pytest.approx([low, high], abs=1e-9)
    wide_low, wide_high = anytime_interval(values, level=0.99)
    assert wide_low <= low + 1e-12 and high <= wide_high + 1e-12


@pytest.mark.parametrize("n, most", [(20, 1.7), (50, 1.7), (200, 1.7), (1000, 1.75), (100_000, 2.0)])
@pytest.mark.parametrize("rate", [0.6, 0.9])
def test_its_width_beside_wilsons(n, rate, most):
    wins = round(n * rate)
    low, high = anytime_interval([1] * wins + [0] * (n - wins))
    assert 1.4 < (high - low) / np.ptp(wilson(wins, n)) < most


def test_all_wins():
    # m^-n Σ weight (m + b (1 - m))^n = 40 lies between all stakes on 0.95 with its weight, and the whole wealth on 1.
    low, high = anytime_interval([1] * 50)
    assert high == 1
    assert low < clopper_pearson(50, 50)[0] < low + 0.1
    assert low == pytest.approx(40 ** (-1 / 50), abs=0.08) and low < 40 ** (-1 / 50)


def test_no_values_say_nothing_and_others_are_refused():
    assert anytime_interval([]) == [0.0, 1.0]
    assert confidence_sequence([]).shape == (0, 2)
    for values in ([1.1], [float("nan")], [[0.5]]):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            anytime_interval(values)
    with pytest.raises(ValueError, match="level"):
        anytime_interval([0.5], level=1.0)


@pytest.mark.parametrize("rate, ties", [(0.5, 0.0), (0.5, 0.4), (0.8, 0.1)])
def test_daily_looks_cover_at_all_looks_at_once(rate, ties):
    # 1,000 studies of 400 prompts, looked at every 10; an interval made for one look misses at some look in a third.
    chances = [rate - ties / 2, ties, 1 - rate - ties / 2]
    counts = np.random.default_rng(1).multinomial(10, chances, size=(1000, 40)).cumsum(axis=1)
    low, high = ends_of_counts(counts.reshape(-1, 3), [1.0, 0.5, 0.0])
    missed = ((low > rate) | (high < rate)).reshape(1000, 40).any(axis=1).mean()
    assert missed <= 0.05, "the bound is not met by chance: in the long run fewer than 0.03 miss"
    means, spread = counts @ [1, 0.5, 0] / counts.sum(axis=-1), np.sqrt(rate * (1 - rate) - ties / 4)
    naive = np.abs(means - rate) > 1.96 * spread / np.sqrt(counts.sum(axis=-1))
    assert naive.any(axis=1).mean() > 0.2


def test_a_hundred_thousand_values_that_are_all_different():
    values = np.random.default_rng(2).random(100_000)
    low, high = anytime_interval(values)
    assert low < 0.5 < high and high - low < 0.01
