"""Strengths of many models: choix's numbers, the exact formula of two models, properties, and coverage."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import t

from preferences.stats.bradley_terry import against_others, fit_strengths, strengths
from preferences.stats.intervals import exact_mean


def test_choixs_numbers():
    # choix 0.4.1: ilsr_pairwise_dense(wins, alpha=0, max_iter=1000, tol=1e-12), mean taken off.
    wins = np.array([[0, 7.5, 4, 3], [2.5, 0, 6, 2.5], [6, 3, 0, 1], [5, 7.5, 8, 0]])
    assert strengths(wins) == pytest.approx([6.81301769e-04, -0.383417657, -0.475682286, 0.858418642], abs=1e-8)
    # The same with half a win more for each of each pair.
    given_ties = wins + 0.5 * (1 - np.eye(4))
    assert strengths(given_ties) == pytest.approx([0.00714856, -0.34182688, -0.4208767, 0.75555502], abs=1e-8)
    # choix's opt_pairwise and mm_pairwise, where one pair of three never met one way round.
    cycle = np.array([[0, 2, 0], [1, 0, 3], [4, 1, 0]])
    assert strengths(cycle) == pytest.approx([-0.60621197, 0.25019312, 0.35601885], abs=1e-8)


def rows(wins):
    """Comparison rows, each on a prompt of its own, of a table of whole wins."""
    found = [(i, j) for i, line in enumerate(wins) for j, times in enumerate(line) for _ in range(times)]
    return range(len(found)), [f"m{i}" for i, _ in found], [f"m{j}" for _, j in found], [1.0] * len(found)


def test_two_models_have_the_exact_formula():
    # 30 wins, 10 losses, 4 ties (2 wins and 2 losses): log(32.5 / 12.5); the win rate is 32.5 / 45.
    result = fit_strengths(range(44), ["a"] * 44, ["b"] * 44, [1.0] * 30 + [0.0] * 10 + [0.5] * 4)
    assert list(result) == ["a", "b"]
    assert result["a"]["strength"] == pytest.approx(np.log(32.5 / 12.5) / 2)
    assert result["a"]["win_rate"] == pytest.approx(32.5 / 45)
    assert result["b"]["strength"] == -result["a"]["strength"]
    assert result["a"]["n"] == 44
    low, high = result["a"]["interval"]
    # Half of the log-odds, whose error by hand: p = 32.5 / 45; scores sum to 32 - 44 p; H = 45 p (1 - p).
    p = 32.5 / 45
    said = np.array([1.0] * 30 + [0.0] * 10 + [0.5] * 4)
    error = np.sqrt(44 * said.var(ddof=1) + p**2 + (1 - p) ** 2) / (45 * p * (1 - p)) / 2
    assert result["a"]["standard_error"] == pytest.approx(error)
    assert [low, high] == pytest.approx(result["a"]["strength"] + np.array([-1, 1]) * t.ppf(0.975, 43) * error)
    assert result["a"]["win_rate_interval"] == pytest.approx(exact_mean(p, error * 2 * p * (1 - p), 44))
    json.dumps(result, allow_nan=False)


def test_a_model_that_never_loses_has_a_finite_strength():
    result = fit_strengths(range(20), ["a"] * 20, ["b"] * 20, [1.0] * 20)
    assert result["a"]["strength"] == pytest.approx(np.log(20.5 / 0.5) / 2)


def test_models_that_never_met_cannot_be_compared():
    with pytest.raises(ValueError, match="no chain of comparisons connects a, b with c, d"):
        fit_strengths([1, 2], ["a", "c"], ["b", "d"], [1.0, 0.0])
    # Two that never met, over a third.
    result = fit_strengths([1, 2, 3], ["a", "c", "a"], ["b", "b", "b"], [1.0, 0.0, 1.0])
    assert list(result) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: fit_strengths([1], ["a"], ["a"], [1.0]), "a is compared with itself"),
        (lambda: fit_strengths([1], ["a"], ["b"], [1.5]), r"\[0, 1\]"),
        (lambda: fit_strengths([1, 2], ["a"], ["b"], [1.0]), "one length"),
        (lambda: fit_strengths([], [], [], []), "at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


tables = st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=4, max_size=4)


@settings(max_examples=40, deadline=None)
@given(tables, st.randoms())
def test_turning_pairs_round_and_reordering_change_nothing(table, random):
    wins = np.array(table) * (1 - np.eye(4, dtype=int))
    assume((wins + wins.T > 0).sum(axis=1).min() > 1)
    prompts, first, second, preferences = rows(wins)
    prompts = [n % 5 for n in prompts]
    expected = fit_strengths(prompts, first, second, preferences)
    order = list(range(len(first)))
    random.shuffle(order)
    turned = [random.random() < 0.5 for _ in order]
    again = fit_strengths(
        [prompts[n] for n in order],
        [second[n] if turn else first[n] for n, turn in zip(order, turned, strict=True)],
        [first[n] if turn else second[n] for n, turn in zip(order, turned, strict=True)],
        [0.0 if turn else 1.0 for turn in turned],
    )
    for model, fields in expected.items():
        for key in ("strength", "standard_error", "interval", "win_rate", "win_rate_interval", "n"):
            assert again[model][key] == pytest.approx(fields[key], abs=1e-7)


@settings(max_examples=40)
@given(tables)
def test_at_the_maximum_each_model_wins_as_often_as_expected(table):
    wins = (np.array(table) + 0.5) * (1 - np.eye(4))
    theta = strengths(wins)
    assert theta.mean() == pytest.approx(0, abs=1e-9)
    chance = 1 / (1 + np.exp(theta[None, :] - theta[:, None]))
    assert ((wins + wins.T) * chance).sum(axis=1) == pytest.approx(wins.sum(axis=1), abs=1e-6)  # the score equations
    assert strengths(wins.T) == pytest.approx(-theta, abs=1e-7), "who loses all that another wins is its mirror"
    assert strengths(np.stack([wins, wins.T]))[0] == pytest.approx(theta, abs=1e-9), "many tables at once"


def test_lopsided_tables_converge():
    # Strengths of 0, 6, 12 and 18 log-odds, by the exact formula of a chain: each pair that met stands alone.
    wins = np.zeros((4, 4))
    for n in range(3):
        wins[n + 1, n], wins[n, n + 1] = 1e6, 1e6 * np.exp(-6)
    assert np.diff(strengths(wins)) == pytest.approx([6, 6, 6], abs=1e-6)


def test_win_rate_against_the_average_of_the_others():
    # Strengths 0, log 3, log 9: chances 3/4, 9/10, 3/4.
    theta = np.log([1, 3, 9])
    assert against_others(theta) == pytest.approx([(1 / 4 + 1 / 10) / 2, (3 / 4 + 1 / 4) / 2, (9 / 10 + 3 / 4) / 2])
    assert against_others(np.zeros(1)) == pytest.approx([0.5])


def test_prompts_are_what_is_drawn():
    # Three models on 40 prompts; saying each thing five times is no more evidence, if it is of the same prompts.
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(40), 3)
    first, second = ["a", "a", "b"] * 40, ["b", "c", "c"] * 40
    preferences = (rng.random(120) < 0.6).astype(float)
    once = fit_strengths(prompts, first, second, preferences)
    often = fit_strengths(np.tile(prompts, 5), first * 5, second * 5, np.tile(preferences, 5))
    fresh = fit_strengths(np.arange(600), first * 5, second * 5, np.tile(preferences, 5))
    widths = [np.ptp(result["a"]["interval"]) for result in (once, often, fresh)]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    assert widths[2] < 0.6 * widths[0]  # 1 / √5 where a prompt's three rows say nothing of one another


def test_intervals_cover():
    # 1,000 studies of 30 prompts and three models, all pairs on each prompt; the simulation's own error is 0.007.
    true = np.array([0.5, 0.0, -0.5])
    first, second = np.array([0, 0, 1]), np.array([1, 2, 2])
    names = np.array(["a", "b", "c"])
    prompts, candidates, baselines = np.repeat(np.arange(30), 3), np.tile(names[first], 30), np.tile(names[second], 30)
    won = np.random.default_rng(3).random((1000, 30, 3)) < 1 / (1 + np.exp(true[second] - true[first]))
    studies = [fit_strengths(prompts, candidates, baselines, one.ravel()) for one in won]
    rates = against_others(true)
    for model, truth, rate in zip(names, true, rates, strict=True):
        for key, value in (("interval", truth), ("win_rate_interval", rate)):
            ends = np.array([study[model][key] for study in studies])
            assert ((ends[:, 0] <= value) & (value <= ends[:, 1])).mean() >= 0.95 - 3 * 0.007, (model, key)


def test_ten_models_on_two_thousand_prompts():
    first, second = np.triu_indices(10, 1)
    names = np.array([f"m{n}" for n in range(10)])
    wins = (np.random.default_rng(0).random(2000 * 45) < 0.5).astype(float)
    prompts = np.repeat(np.arange(2000), 45)
    result = fit_strengths(prompts, np.tile(names[first], 2000), np.tile(names[second], 2000), wins)
    assert max(abs(fields["strength"]) for fields in result.values()) < 0.1
    assert all(fields["n"] == 2000 for fields in result.values())
