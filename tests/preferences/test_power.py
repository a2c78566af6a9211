"""How many prompts: against statsmodels, textbooks, simulation, and the smallest detectable win rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import NormalIndPower, normal_power

from preferences.stats.intervals import clopper_pearson
from preferences.stats.power import design_effect, more_prompts, power_of, prompts_needed
from preferences.stats.winrate import smallest_detectable, win_rate


def test_the_textbooks_sample():
    # (1.95996 + 0.84162)² · 0.25 / 0.05² = 784.9, and for 0.6 a quarter of it.
    assert prompts_needed(0.55) == prompts_needed(0.45) == 785
    assert prompts_needed(0.6) == 197
    assert prompts_needed(0.55, design_effect=2.0) == 1570
    assert prompts_needed(0.55, power=0.5) == 385  # (1.95996 / 0.1)² = 384.1: an even chance
    # Miller 2024: at n prompts the smallest rate found with 80% power, and back.
    assert prompts_needed(smallest_detectable([1.0] * 200 + [0.0] * 200)) == 400


@pytest.mark.parametrize("rate", [0.3, 0.52, 0.6])
@pytest.mark.parametrize("spread", [0.2, 0.5])
@pytest.mark.parametrize("level, power", [(0.95, 0.8), (0.99, 0.9)])
def test_statsmodels_numbers(rate, spread, level, power):
    effect = (rate - 0.5) / spread
    n = NormalIndPower().solve_power(effect, alpha=1 - level, power=power, ratio=0)
    assert prompts_needed(rate, spread, power, level) == max(1, int(np.ceil(n - 1e-6)))
    for prompts in (1, 40, 500):
        expected = normal_power(effect, prompts, 1 - level)
        assert power_of(rate, spread, prompts, level) == pytest.approx(expected, abs=1e-9)
        assert power_of(rate, spread, 3 * prompts, level, 3.0) == pytest.approx(expected, abs=1e-9)


@given(st.floats(0, 1).filter(lambda rate: abs(rate - 0.5) > 0.01), st.floats(0.5, 0.99), st.floats(1, 5))
def test_prompts_needed_are_just_enough(rate, power, effect):
    n = prompts_needed(rate, 0.5, power, design_effect=effect)
    assert power_of(rate, 0.5, n, design_effect=effect) >= power - 1e-9
    if n > 20:
        assert power_of(rate, 0.5, n - 1, design_effect=effect) < power + 1e-4  # the far side adds next to nothing


def test_power_by_simulation():
    # With 30% ties the spread at 0.58 is √(0.25 · 0.7 - 0.08²); the test is "the normal interval excludes one half".
    rate, ties = 0.58, 0.3
    spread = float(np.sqrt(0.25 * (1 - ties) - (rate - 0.5) ** 2))
    n = prompts_needed(rate, spread)
    counts = np.random.default_rng(0).multinomial(n, [rate - ties / 2, ties, 1 - rate - ties / 2], size=20_000)
    means = counts @ [1, 0.5, 0] / n
    errors = np.sqrt((counts @ [1, 0.25, 0] / n - means**2) / (n - 1))
    found = (np.abs(means - 0.5) > 1.96 * errors).mean()
    assert found == pytest.approx(0.80, abs=0.015)


def test_more_prompts_by_hand():
    # 60% of 100, interval from 0.45: for an even chance the lower side of 0.15 must become 0.10, so 100 (1.5)² = 225;
    # for 80%, 0.10 must be 2.80158 / 1.95996 = 1.42940 such sides: 100 (1.5 · 1.42940)² = 459.7.
    assert more_prompts(0.6, [0.45, 0.7], 100, power=0.5) == 125
    assert more_prompts(0.6, [0.45, 0.7], 100) == more_prompts(0.4, [0.3, 0.55], 100) == 360
    assert more_prompts(0.6, [0.51, 0.7], 100) is None, "it excludes one half already"
    assert more_prompts(0.4, [0.3, 0.49], 100) is None
    assert more_prompts(0.5, [0.4, 0.6], 100) is None, "no number would do"
    assert more_prompts(0.6, [0.5, 0.7], 100) == 105  # 100 · 1.42940² = 204.3


def test_with_as_many_more_the_interval_excludes_one_half_four_times_in_five():
    # 28 of 50: it names about what planning for a true rate of 0.56 does, and that finds it.
    fields = win_rate([1.0] * 28 + [0.0] * 22)
    n = 50 + more_prompts(fields["win_rate"], fields["interval"], 50)
    assert n == pytest.approx(prompts_needed(0.56, np.sqrt(0.56 * 0.44)), rel=0.15)
    wins, times = np.unique(np.random.default_rng(0).binomial(n, 0.56, size=4000), return_counts=True)
    found = np.array([clopper_pearson(int(k), n)[0] > 0.5 for k in wins]) @ times / 4000
    assert found == pytest.approx(0.80, abs=0.06)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_more_prompts_mirror(wins, ties, losses):
    values = np.repeat([1.0, 0.5, 0.0], [wins, ties, losses])
    if len(values):
        here, there = win_rate(values, resamples=10), win_rate(1 - values, resamples=10)
        one, other = (more_prompts(f["win_rate"], f["interval"], f["n"]) for f in (here, there))
        assert (one is None) == (other is None)
        assert one is None or (one == pytest.approx(other, abs=1, rel=1e-6) and one > 0)


def test_design_effect():
    assert design_effect(1, 0.5) == 1.0
    assert design_effect(20, 0.05) == pytest.approx(1.95)
    # By simulation: 30 raters with 20 verdicts each, 5% of whose variance is the rater's own.
    rng = np.random.default_rng(0)
    own, rest = rng.normal(0, np.sqrt(0.05), (4000, 30, 1)), rng.normal(0, np.sqrt(0.95), (4000, 30, 20))
    means = (own + rest).mean(axis=(1, 2))
    assert means.var() * 600 == pytest.approx(1.95, rel=0.1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: prompts_needed(0.5),
        lambda: prompts_needed(1.2),
        lambda: prompts_needed(0.6, spread=0.0),
        lambda: prompts_needed(0.6, power=1.0),
        lambda: power_of(0.6, n=-1),
        lambda: power_of(0.6, level=1.0),
        lambda: design_effect(0, 0.1),
        lambda: design_effect(5, 1.5),
    ],
)
def test_what_has_no_answer_is_refused(call):
    with pytest.raises(ValueError):
        call()
