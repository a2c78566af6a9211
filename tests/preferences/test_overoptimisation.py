"""Best-of-n from order statistics, Gao et al.'s curves, and what may be said of a fall."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preferences.stats.overoptimisation import (
    best_of,
    best_of_kl,
    best_of_weights,
    curve,
    fall,
    fit,
    fit_curve,
    nearest_unbeaten,
    peak_of,
    told_apart,
)

SCORES = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=6)


def test_the_weights_are_the_chances_of_being_the_best_of_n() -> None:
    # best of 2 of 4: of the six pairs the second is the best of 1, the third of 2, the fourth of 3
    assert best_of_weights(2, 4) == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6])
    assert best_of_weights(1, 4) == pytest.approx([0.25] * 4)
    assert best_of_weights(4, 4) == pytest.approx([0, 0, 0, 1])
    assert best_of_weights(512, 1024).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="best of 5 from 4 samples"):
        best_of_weights(5, 4)


@settings(max_examples=60)
@given(SCORES, st.integers(1, 6), st.data())
def test_best_of_n_is_the_mean_over_all_subsets(scores: list[float], n: int, data: st.DataObject) -> None:
    n = min(n, len(scores))
    gold = data.draw(st.lists(st.floats(-5, 5), min_size=len(scores), max_size=len(scores)))
    by_hand = []
    for subset in itertools.combinations(range(len(scores)), n):
        best = max(scores[i] for i in subset)
        by_hand.append(np.mean([gold[i] for i in subset if scores[i] == best]))  # chance decides between equals
    assert best_of([scores], [gold], [n]) == pytest.approx(np.mean(by_hand))


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12))
def test_best_of_one_is_the_mean_of_all_is_the_maximum_and_more_is_never_worse(scores: list[float]) -> None:
    ns = range(1, len(scores) + 1)
    values = best_of([scores], [scores], ns)[:, 0]
    assert values[0] == pytest.approx(np.mean(scores))
    assert values[-1] == pytest.approx(max(scores))
    assert (np.diff(values) >= -1e-9).all()


def test_the_estimate_is_unbiased() -> None:
    """Of uniform scores the best of n has the mean n / (n + 1)."""
    scores = np.random.default_rng(0).random((40_000, 8))
    found = best_of(scores, scores, [1, 2, 4, 8]).mean(axis=1)
    assert found == pytest.approx([1 / 2, 2 / 3, 4 / 5, 8 / 9], abs=5e-3)  # five standard errors of best of 1


def test_the_kl_of_best_of_n() -> None:
    assert best_of_kl(1) == 0
    assert best_of_kl(2) == pytest.approx(math.log(2) - 0.5)
    assert best_of_kl(16) == pytest.approx(1.8350887)  # log 16 = 2.7725887, less 15/16


def test_the_kl_of_best_of_n_is_exact_without_ties_and_a_bound_with_them() -> None:
    """Best of 2 of a fair choice among m: the i-th lowest comes out with (i² - (i-1)²) / m²."""
    for m, slack in ((2, 0.2), (1000, 1e-3)):
        i = np.arange(1, m + 1)
        chosen = (i**2 - (i - 1) ** 2) / m**2
        kl = float((chosen * np.log(chosen * m)).sum())
        assert kl <= best_of_kl(2) < kl + slack


def test_the_curves_are_zero_at_the_base_and_peak_where_their_derivative_is_zero() -> None:
    # d(3 - d): 2.25 at 1.5; d(2 - log d): e at e
    assert curve("bon", [0.0, 1.5], 3.0, 1.0) == pytest.approx([0, 2.25])
    assert peak_of("bon", 3.0, 1.0) == 1.5
    assert curve("rl", [0.0, math.e], 2.0, 1.0) == pytest.approx([0, math.e])
    assert peak_of("rl", 2.0, 1.0) == pytest.approx(math.e)
    assert peak_of("bon", 1.0, -0.1) == peak_of("rl", 1.0, 0.0) == np.inf, "it only rises"
    assert peak_of("bon", -1.0, 0.1) == np.inf, "it falls from the start"


@given(st.sampled_from(["bon", "rl"]), st.floats(0.1, 3), st.floats(0.01, 1), st.floats(0.01, 0.5))
def test_no_place_is_higher_than_the_peak(form: str, alpha: float, beta: float, step: float) -> None:
    top = float(peak_of(form, alpha, beta))  # type: ignore[arg-type]
    beside = curve(form, [top * (1 - step), top, top * (1 + step)], alpha, beta)  # type: ignore[arg-type]
    assert beside[1] >= max(beside[0], beside[2]) - 1e-12


@settings(max_examples=50)
@given(st.sampled_from(["bon", "rl"]), st.floats(-3, 3), st.floats(-1, 1), st.lists(st.floats(0.1, 9), min_size=4))
def test_known_parameters_come_back(form: str, alpha: float, beta: float, weights: list[float]) -> None:
    d = np.linspace(0, 4, len(weights))
    found = fit(form, d, curve(form, d, alpha, beta), weights)  # type: ignore[arg-type]
    assert found == (pytest.approx(alpha, abs=1e-6), pytest.approx(beta, abs=1e-6))


def test_the_fit_is_weighted_least_squares() -> None:
    """The same by numpy's lstsq on rows scaled by √w; and one point can't tell two parameters."""
    rng = np.random.default_rng(1)
    d, r, w = rng.uniform(0.2, 3, 9), rng.normal(size=9), rng.uniform(0.5, 4, 9)
    rows = np.stack([d, -d * np.log(d)], axis=1) * np.sqrt(w)[:, None]
    expected = np.linalg.lstsq(rows, r * np.sqrt(w), rcond=None)[0]
    assert fit("rl", d, r, w) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    assert np.isnan(fit("rl", [1.0, 1.0], [1.0, 2.0], [1.0, 1.0])).all()


KL = np.array([0.0, 0.25, 1.0, 2.25, 4.0, 6.25, 9.0])  # d = 0, 0.5, … 3


def measured(shape: str, prompts: int, noise: float, seed: int) -> np.ndarray:
    """Gold rewards (points, prompts) with noise shared by a prompt's neighbours, as checkpoints of one run have."""
    rng = np.random.default_rng(seed)
    d = np.sqrt(KL)
    mean = {"falls": d * (2 - 0.7 * d), "rises": 0.6 * d, "levels off": np.tanh(2 * d), "flat": 0 * d}[shape]
    values = mean[:, None] + noise * (rng.normal(size=(len(d), prompts)) + rng.normal(size=prompts))
    values[0] = 0.0
    return np.asarray(values)


def test_a_fall_is_found_with_its_place() -> None:
    found = fit_curve("bon", KL, measured("falls", 300, 0.5, 0))
    assert found is not None
    assert found["points"] == 6, "the base is no point of the fit"
    assert found["alpha_interval"][0] < 2 < found["alpha_interval"][1]
    assert found["beta_interval"][0] < 0.7 < found["beta_interval"][1]
    assert found["r2"] > 0.9
    low, high = found["peak"]["interval"]
    assert low < 2 / 1.4 < high
    assert high - low < 0.5
    assert found["peak"]["reward"] == pytest.approx(1 / 0.7, abs=0.15)  # α² / 4β


@pytest.mark.parametrize("shape", ["rises", "levels off", "flat"])
@pytest.mark.parametrize("form", ["bon", "rl"])
def test_no_fall_is_marked_where_there_is_none(form: str, shape: str) -> None:
    """A form alone falls somewhere: what levels off is fitted best by a parabola that comes down again."""
    marked = [fit_curve(form, KL, measured(shape, 100, 1.0, s), resamples=400)["peak"] for s in range(30)]  # type: ignore[arg-type, index]
    assert sum(peak is not None for peak in marked) <= 2  # 30 × 5% of them are 1.5, if the fall test alone decided


def test_points_that_do_not_follow_the_form_make_the_intervals_wider() -> None:
    """A parabola is no d(α - β log d). With a tenth of the noise the prompts alone would make intervals ten times
    narrower, though the form is off as before.
    """
    right = fit_curve("bon", KL, measured("falls", 200, 0.5, 1))
    assert right is not None and right["misfit"] < 1.8  # χ² of 4 degrees of freedom is above 4 × 1.8² in 1.2%
    found = [fit_curve("rl", KL, measured("falls", 200, noise, 1)) for noise in (0.5, 0.05)]
    assert found[0] is not None and found[1] is not None
    assert 3 < found[0]["misfit"] < found[1]["misfit"] / 5
    widths = [np.ptp(each["beta_interval"]) / each["misfit"] for each in found]
    assert widths[0] == pytest.approx(10 * widths[1], rel=0.3), "prompts alone"


def test_too_little_gives_no_fit() -> None:
    assert fit_curve("bon", KL[:3], measured("falls", 50, 0.1, 0)[:3]) is None, "two points off the base"
    assert fit_curve("bon", KL, measured("falls", 1, 0.1, 0)) is None, "one prompt"


def test_a_measured_kl_varies_with_the_prompts() -> None:
    rng = np.random.default_rng(3)
    rewards = measured("falls", 200, 0.5, 4)
    known = fit_curve("bon", KL, rewards)
    sampled = fit_curve("bon", KL[:, None] * rng.exponential(size=(7, 200)) ** 3 / 6, rewards)
    assert known is not None and sampled is not None
    widths = [np.ptp(found["alpha_interval"]) / found["misfit"] for found in (known, sampled)]
    assert widths[1] > 1.1 * widths[0]


def test_points_told_apart_by_a_wide_margin_and_not_by_noise() -> None:
    rng = np.random.default_rng(5)
    rewards = np.array([0.0, 1.0, 1.02])[:, None] + 0.3 * rng.normal(size=(3, 80))
    above = told_apart(rewards).above
    assert above.tolist() == [[False, False, False], [True, False, False], [True, False, False]]


def test_what_one_pair_needs_is_about_students_t() -> None:
    """scipy.stats.t.ppf(0.975, 99) = 1.984; with seven points to compare it is more (Tukey: 2.95 / 3.0 of 21 pairs)."""
    rng = np.random.default_rng(6)
    assert told_apart(rng.normal(size=(2, 100))).critical == pytest.approx(1.984, abs=0.1)
    assert 2.8 < told_apart(rng.normal(size=(7, 100))).critical < 3.3


def test_equal_models_are_wrongly_told_apart_as_rarely_as_said() -> None:
    rng = np.random.default_rng(7)
    wrong = sum(told_apart(rng.normal(size=(6, 60)), resamples=400).above.any() for _ in range(100))
    assert wrong <= 11  # binomial(100, 0.05): at most 11 in 99.6%


def test_models_that_say_the_same_are_never_told_apart_and_a_constant_step_is() -> None:
    same = np.tile(np.arange(12.0), (2, 1))
    assert not told_apart(same).above.any()
    assert told_apart(np.add(same, [[0.0], [1.0]])).above.tolist() == [[False, False], [True, False]]
    assert not told_apart([[1.0], [2.0]]).above.any(), "one prompt shows nothing"


def test_the_nearest_of_those_that_nothing_beats() -> None:
    above = np.zeros((4, 4), dtype=bool)
    assert nearest_unbeaten([0, 1, 2, 3], above) == 0
    above[1, 0] = above[3, 0] = above[3, 2] = True
    assert nearest_unbeaten([0, 1, 2, 3], above) == 1
    assert nearest_unbeaten([0, 9, 2, 3], above) == 3


def test_a_fall_goes_from_a_point_off_the_base_to_one_behind_it() -> None:
    above = np.zeros((3, 3), dtype=bool)
    above[0, 1] = above[2, 1] = True
    assert fall([0, 1, 2], above) is None, "below the base, and up again: there is nothing to fall from"
    above[1, 2] = True
    assert fall([0, 1, 2], above) == (1, 2)
