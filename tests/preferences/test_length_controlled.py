"""The length-controlled win rate against statsmodels, scikit-learn, AlpacaEval's own code, and known truths."""

import numpy as np
import pytest
import statsmodels.api as sm

from preferences.stats.length_controlled import fit_logistic, length_controlled


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def made(seed: int, n: int = 400):
    """Preferences with ties, and length differences; the longer wins more often."""
    rng = np.random.default_rng(seed)
    d = np.round(rng.normal(150, 300, n))
    x = rng.random(n) < sigmoid(0.3 + 1.5 * np.tanh(d / 300))
    return np.where(rng.random(n) < 0.2, 0.5, x * 1.0), d


@pytest.mark.parametrize(("seed", "theirs"), [(0, 0.562962), (1, 0.511555), (2, 0.578303)])
def test_alpaca_evals_own_code_says_the_same(seed, theirs):
    # Their fit_LogisticRegressionCV (commit cd543a1) with formula "np.tanh(std_delta_len) + 1" and penalty "l2", on
    # these rows: benchmarks/alpaca_eval.py, their_rate. They shrink the intercept, too, and make other folds.
    y, d = made(seed)
    ours = length_controlled(y, d)
    assert ours is not None
    assert ours[0] == pytest.approx(theirs, abs=0.001)
    assert y.mean() - ours[0] > 0.05, "the win rate itself would pass, too"


def test_without_penalty_it_is_statsmodels_binomial_model():
    y, d = made(7)
    hard = np.random.default_rng(8).normal(size=len(y))
    x = np.stack([np.ones_like(y), np.tanh(d / d.std(ddof=1)), hard], axis=1)
    theirs = sm.GLM(y, x, family=sm.families.Binomial()).fit(tol=1e-12)
    assert fit_logistic(x, y, 0.0) == pytest.approx(theirs.params, abs=1e-8)


@pytest.mark.parametrize(
    ("c", "theirs"),
    [
        (0.01, (0.27135461, 0.1234218, -0.11993993)),
        (1.0, (0.2964824, 0.56836043, -0.30062344)),
        (100.0, (0.29802543, 0.59045198, -0.30603028)),
    ],
)
def test_penalised_it_is_scikit_learns(c, theirs):
    # LogisticRegression(C=c, tol=1e-12) of scikit-learn 1.9.1 on these rows: intercept and coefficients.
    rng = np.random.default_rng(5)
    x = np.stack([np.ones(300), np.tanh(rng.normal(size=300)), rng.normal(size=300)], axis=1)
    y = (rng.random(300) < sigmoid(x @ [0.3, 1, -0.5])).astype(float)
    assert fit_logistic(x, y, 1 / c) == pytest.approx(theirs, abs=1e-4)


def test_standard_error_is_statsmodels_sandwich():
    # Without difficulty the rate is σ(a): its error is σ'(a) times the robust error of a, up to n / (n - 2).
    y, d = made(11, n=3000)  # so many that the penalty is next to nothing
    ours = length_controlled(y, d)
    x = np.stack([np.ones_like(y), np.tanh(d / d.std(ddof=1))], axis=1)
    theirs = sm.GLM(y, x, family=sm.families.Binomial()).fit(cov_type="HC0", tol=1e-12)
    rate = sigmoid(theirs.params[0])
    error = rate * (1 - rate) * theirs.bse[0] * np.sqrt(3000 / 2998)
    assert ours == pytest.approx((rate, error), rel=1e-3)


def test_standard_error_with_difficulty_is_what_other_prompts_change():
    # 200 studies of 300 prompts each: the spread of their rates is the error that each of them states.
    rng = np.random.default_rng(3)
    rates, errors = [], []
    for _ in range(200):
        d, hard = rng.normal(100, 300, 300), rng.normal(size=300)
        y = (rng.random(300) < sigmoid(0.4 + 1.2 * np.tanh(d / 300) + 1.5 * hard)).astype(float)
        rate, error = length_controlled(y, d, hard) or (np.nan, np.nan)
        rates.append(rate)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(rates), rel=0.15)  # 200 standard deviations are known to 5%
    truth = sigmoid(0.4 + 1.5 * rng.normal(size=1_000_000)).mean()
    assert np.mean(rates) == pytest.approx(truth, abs=0.008)


def test_neither_the_order_of_prompts_nor_which_model_is_the_candidate_matters():
    y, d = made(4)
    hard = np.random.default_rng(1).normal(size=len(y))
    rate, error = length_controlled(y, d, hard) or (0, 0)
    mixed = np.random.default_rng(2).permutation(len(y))
    assert length_controlled(y[mixed], d[mixed], hard[mixed]) == pytest.approx((rate, error), abs=1e-9)
    assert length_controlled(1 - y, -d, hard) == pytest.approx((1 - rate, error), abs=1e-9)
    assert length_controlled(y, d * 7, hard * 3 + 5) == pytest.approx((rate, error), abs=1e-9)  # other units


def test_where_length_says_nothing_it_is_the_win_rate():
    rng = np.random.default_rng(0)
    y = rng.choice([0.0, 0.5, 1.0], 200)
    assert length_controlled(y, np.zeros(200)) == pytest.approx((y.mean(), y.std(ddof=1) / np.sqrt(200)))


def test_without_a_prompt_at_equal_length_it_does_not_say_how_sure_it_is():
    rng = np.random.default_rng(0)
    d = np.abs(rng.normal(500, 100, 300))  # the candidate's is always longer
    y = (rng.random(300) < 0.7).astype(float)
    rate, error = length_controlled(y, d) or (np.nan, np.nan)
    assert 0 <= rate <= 1 and error is None
    few = np.where(np.arange(300) < 14, -d, d)  # fewer than one in twenty
    assert length_controlled(y, few)[1] is None
    assert length_controlled(y, np.where(np.arange(300) < 15, -d, d))[1] is not None
    assert length_controlled(y, np.where(np.arange(300) < 15, 0, d))[1] is not None
    assert length_controlled([1.0] * 20, np.arange(20.0) - 10) == (1.0, None)  # all wins: an error of 0 would be a lie


def test_standard_error_does_not_take_the_penaltys_word():
    # The candidate's is longer in 84 of 100 prompts, and length decides: what b is is known badly, and the error at the
    # penalty found, 0.066 on average here, is below the spread of the rates, 0.083.
    rng = np.random.default_rng(0)
    found = []
    for _ in range(150):
        d = rng.normal(100, 100, 100)
        y = (rng.random(100) < sigmoid(0.3 + np.tanh(d / 100))).astype(float)
        found.append(length_controlled(y, d) or (np.nan, np.nan))
    rates, errors = np.array(found).T
    assert np.mean(np.abs(rates - sigmoid(0.3)) < 1.96 * errors) >= 0.9
    assert np.mean(errors) > 0.9 * np.std(rates)


def test_ties_of_opposite_lengths_may_stand_in_any_order():
    rng = np.random.default_rng(6)
    d = np.concatenate([[30.0, -30.0] * 20, rng.normal(20, 50, 40)])
    y = np.r_[np.full(40, 0.5), (rng.random(40) < 0.7)]
    first = length_controlled(y, d)
    for seed in range(5):
        mixed = np.random.default_rng(seed).permutation(80)
        assert length_controlled(y[mixed], d[mixed]) == pytest.approx(first, abs=1e-9)
        assert length_controlled(1 - y[mixed], -d[mixed]) == pytest.approx((1 - first[0], first[1]), abs=1e-9)


def test_a_perfect_split_by_length_stays_finite():
    d = np.arange(-10.0, 10) + 0.5
    rate, error = length_controlled((d > 0).astype(float), d) or (0, 0)
    assert rate == pytest.approx(0.5, abs=1e-6) and np.isfinite(error)
    lone = np.r_[0.0, np.ones(9)]  # a fold without the lone loss has only wins to learn from
    assert 0 < (length_controlled(lone, d[:10]) or (0, 0))[0] < 1


def test_where_nothing_can_be_said_it_is_none():
    assert length_controlled([1, 0, 1, 0], [1, 2, 3, 4]) is None
    assert length_controlled([1, 0, 1, 0, 1], [5.0] * 5) is None
    for wrong in (([1, 0], [1, 2, 3]), ([2.0], [1.0]), ([1.0], [np.nan])):
        with pytest.raises(ValueError):
            length_controlled(*wrong)
