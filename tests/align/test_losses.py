"""The losses against numbers from outside: worked by hand, by scipy and statsmodels, and their gradients."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import bernoulli
from torch.autograd import gradcheck

from align.train.losses import bradley_terry, centring, hinge, ipo, plackett_luce, ranked_pairs, smoothed

DIFFERENCES = torch.tensor([-3.0, -0.7, 0.0, 0.4, 2.5], dtype=torch.float64)
PREFERENCES = torch.tensor([1.0, 0.5, 0.8, 0.6, 0.0], dtype=torch.float64)
MARGINS = torch.tensor([0.0, 0.0, 1.0, 0.5, 2.0], dtype=torch.float64)


# --- Bradley-Terry


def test_hard_labels_give_the_usual_reward_loss() -> None:
    # scores 2 over 1 and 0 over 3: -log s(1) = log(1 + e^-1) = 0.313262, -log s(-3) = log(1 + e^3) = 3.048587
    losses = bradley_terry(torch.tensor([1.0, -3.0]), torch.ones(2))
    assert losses.tolist() == pytest.approx([0.313262, 3.048587], abs=1e-6)


def test_soft_labels_are_the_cross_entropy_of_scipy() -> None:
    for d, p in zip(DIFFERENCES.tolist(), PREFERENCES.tolist(), strict=True):
        expected = -(p * bernoulli.logpmf(1, expit(d)) + (1 - p) * bernoulli.logpmf(0, expit(d)))
        found = bradley_terry(torch.tensor(d, dtype=torch.float64), torch.tensor(p, dtype=torch.float64))
        assert float(found) == pytest.approx(expected, abs=1e-12)


def test_a_tie_is_least_where_both_are_as_good() -> None:
    assert bradley_terry(torch.tensor(0.0), torch.tensor(0.5)).item() == pytest.approx(math.log(2))
    assert bradley_terry(torch.tensor(0.5), torch.tensor(0.5)) > math.log(2)


def test_the_loss_is_least_where_the_model_says_what_the_raters_said() -> None:
    for p in (0.5, 0.7, 0.95):
        best = minimize_scalar(lambda d, p=p: float(bradley_terry(torch.tensor(d), torch.tensor(p))), tol=1e-10).x
        assert best == pytest.approx(logit(p), abs=2e-3)


def test_a_margin_is_llama_2s() -> None:
    # eq. 2 of arXiv 2307.09288: -log s(r_c - r_r - m); r = 2 and 0.5, m = 1: -log s(0.5) = 0.474077
    assert bradley_terry(torch.tensor(1.5), torch.tensor(1.0), torch.tensor(1.0)).item() == pytest.approx(0.474077)


def test_a_margin_with_soft_labels_is_the_mean_over_raters() -> None:
    d, m = 0.4, 1.0  # three of four say the first, one the second, all of them clearly: m = 1 for each
    each = [-math.log(expit(d - m))] * 3 + [-math.log(expit(-d - m))]
    found = bradley_terry(torch.tensor(d), torch.tensor(0.75), torch.tensor(m)).item()
    assert found == pytest.approx(sum(each) / 4, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(-20, 20), st.floats(0, 1), st.floats(0, 3))
def test_no_loss_knows_which_response_stood_first(d: float, p: float, m: float) -> None:
    one, other = torch.tensor([d, p, m], dtype=torch.float64), torch.tensor([-d, 1 - p, m], dtype=torch.float64)
    for loss in (bradley_terry, hinge, lambda d, p, m: ipo(d, p, 0.1, m)):
        assert float(loss(*one)) == pytest.approx(float(loss(*other)), rel=1e-9, abs=1e-9)


def test_large_differences_lose_no_precision() -> None:
    losses = bradley_terry(torch.tensor([200.0, -200.0], requires_grad=True), torch.ones(2))
    assert losses.tolist() == [0.0, 200.0]
    losses.sum().backward()


def test_gradients_of_pairs() -> None:
    d = DIFFERENCES.clone().requires_grad_()
    assert gradcheck(lambda x: bradley_terry(x, PREFERENCES, MARGINS), (d,))
    assert gradcheck(lambda x: ipo(x, PREFERENCES, 0.3, MARGINS), (d,))
    assert gradcheck(lambda x: hinge(x, PREFERENCES, MARGINS), (d,))
    bradley_terry(d, PREFERENCES).sum().backward()
    assert d.grad is not None
    assert torch.allclose(d.grad, torch.sigmoid(DIFFERENCES) - PREFERENCES, atol=1e-12)  # the closed form


def test_smoothing() -> None:
    assert smoothed(torch.tensor([1.0, 0.5, 0.8]), 0.1).tolist() == pytest.approx([0.9, 0.5, 0.74])
    # conservative DPO: -(1 - e) log s(d) - e log s(-d), d = 1, e = 0.1: 0.9 * 0.313262 + 0.1 * 1.313262
    found = bradley_terry(torch.tensor(1.0), smoothed(torch.tensor(1.0), 0.1)).item()
    assert found == pytest.approx(0.413262, abs=1e-6)


def test_centring() -> None:
    assert centring(torch.tensor([1.5]), torch.tensor([-0.5])).tolist() == [1.0]
    assert centring(torch.tensor([2.0]), torch.tensor([-2.0])).tolist() == [0.0]


# --- hinge and IPO


def test_hinge_by_hand() -> None:
    # d = 0.4: max(0, 0.6) = 0.6 and max(0, 1.4) = 1.4
    assert hinge(torch.tensor(0.4), torch.tensor(1.0)).item() == pytest.approx(0.6)
    assert hinge(torch.tensor(0.4), torch.tensor(0.75)).item() == pytest.approx(0.75 * 0.6 + 0.25 * 1.4)
    assert hinge(torch.tensor(0.4), torch.tensor(1.0), torch.tensor(0.5)).item() == pytest.approx(1.1)


def test_soft_ipo_has_the_gradient_of_the_papers_own_draws() -> None:
    """Eq. 17's derivation: the mean over I ~ Bernoulli(p) of the loss of who won, (h - 1/(2 tau))^2 or (-h - ...)^2."""
    beta, p = 0.4, 0.7
    for value in (-1.0, 0.0, 0.3, 2.0):
        h = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        drawn = p * (h - 1 / (2 * beta)) ** 2 + (1 - p) * (-h - 1 / (2 * beta)) ** 2
        (expected,) = torch.autograd.grad(drawn, h)
        (found,) = torch.autograd.grad(ipo(h, torch.tensor(p, dtype=torch.float64), beta), h)
        assert float(found) == pytest.approx(float(expected), abs=1e-12)
    assert ipo(torch.tensor(1.0), torch.tensor(1.0), 0.5).item() == 0.0  # at 1 / (2 tau)
    assert ipo(torch.tensor(0.4 / 2), torch.tensor(0.7), 1.0).item() == pytest.approx(0.0, abs=1e-12)
    assert ipo(torch.tensor(0.0), torch.tensor(0.5), 0.1).item() == 0.0  # a tie


# --- Plackett-Luce


def test_a_ranking_by_hand() -> None:
    # worths 3, 2, 1: P(first, second, third) = 3/6 * 2/3 = 1/3, P(third, first, second) = 1/6 * 3/5 = 1/10
    scores = torch.log(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    assert plackett_luce(scores, [1, 2, 3]).exp().item() == pytest.approx(3)
    assert plackett_luce(scores, [2, 3, 1]).exp().item() == pytest.approx(10)
    # second and third tied behind the first: the orders 1 2 3 and 1 3 2 have 1/3 and 3/6 * 1/3 = 1/6
    assert plackett_luce(scores, [1, 2, 2]).item() == pytest.approx((math.log(3) + math.log(6)) / 2)


def test_the_probabilities_of_all_orders_sum_to_one() -> None:
    scores = torch.tensor([0.3, -1.2, 2.0, 0.0], dtype=torch.float64)
    orders = itertools.permutations([1, 2, 3, 4])
    assert sum(plackett_luce(scores, order).neg().exp().item() for order in orders) == pytest.approx(1, abs=1e-12)


def cox(scores: np.ndarray[Any, Any], ranks: list[int]) -> float:
    """Minus the log of Cox's partial likelihood: who goes first is who is best, and nobody is censored."""
    from statsmodels.duration.hazard_regression import PHReg

    return -float(PHReg(np.array(ranks, dtype=float), scores[:, None], ties="breslow").loglike(np.ones(1)))


def test_statsmodels_says_the_same() -> None:
    chance = np.random.default_rng(0)
    for k in (2, 3, 5, 8):
        scores, ranks = chance.normal(size=k), (1 + chance.permutation(k)).tolist()
        assert plackett_luce(torch.tensor(scores), ranks).item() == pytest.approx(cox(scores, ranks), abs=1e-9)


def test_ties_are_the_mean_over_all_orders_that_fit() -> None:
    scores = np.array([0.5, -0.3, 1.1, 0.0, -2.0])
    ranks = [2, 1, 2, 1, 2]
    upper, lower = [1, 3], [0, 2, 4]
    orders = [[*a, *b] for a in itertools.permutations(upper) for b in itertools.permutations(lower)]
    each = [cox(scores, [order.index(number) + 1 for number in range(5)]) for order in orders]
    assert len(each) == 12
    assert plackett_luce(torch.tensor(scores), ranks).item() == pytest.approx(float(np.mean(each)), abs=1e-9)


@pytest.mark.parametrize(("ties", "constant"), [("breslow", 0.0), ("efron", math.log(2))])
def test_the_usual_treatments_count_a_tied_pair_twice(ties: str, constant: float) -> None:
    from statsmodels.duration.hazard_regression import PHReg

    scores = np.array([0.9, -0.4])
    model = PHReg(np.array([1.0, 1.0]), scores[:, None], ties=ties)
    usual = model.efron_loglike(np.ones(1)) if ties == "efron" else model.breslow_loglike(np.ones(1))
    assert -float(usual) == pytest.approx(2 * plackett_luce(torch.tensor(scores), [1, 1]).item() - constant, abs=1e-9)


@pytest.mark.parametrize(("ranks", "preference"), [([1, 2], 1.0), ([2, 1], 0.0), ([1, 1], 0.5)])
def test_a_ranking_of_two_is_a_pair(ranks: list[int], preference: float) -> None:
    scores = torch.tensor([0.9, -0.4], dtype=torch.float64)
    margin = 0.7 if preference != 0.5 else 0.0
    pair = bradley_terry(scores[0] - scores[1], torch.tensor(preference, dtype=torch.float64), margin)
    assert plackett_luce(scores, ranks, margin).item() == pytest.approx(pair.item(), abs=1e-12)


def test_a_margin_is_between_the_best_and_the_others() -> None:
    # the first's worth is 3 and counts as 3 / e: P = 3/e / (3/e + 2 + 1) * 2/3
    scores = torch.log(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    worth = 3 / math.e
    expected = -math.log(worth / (worth + 3) * 2 / 3)
    assert plackett_luce(scores, [1, 2, 3], 1.0).item() == pytest.approx(expected, abs=1e-12)


def test_gradients_of_rankings() -> None:
    scores = torch.tensor([0.3, -1.2, 2.0, 0.0], dtype=torch.float64, requires_grad=True)
    for ranks in ([1, 2, 3, 4], [2, 1, 2, 1], [1, 1, 1, 1], [3, 1, 1, 2]):
        assert gradcheck(lambda s, ranks=ranks: plackett_luce(s, ranks, 0.5), (scores,))
    (gradient,) = torch.autograd.grad(plackett_luce(scores, [1, 2, 3, 4]), scores)
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-12)  # zero and unit are open: only differences count
    level = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(plackett_luce(level, [1, 1, 1, 1]), level)
    assert gradient.abs().max().item() < 1e-12  # all tied is least where all are as good


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-8, 8), st.integers(1, 4)), min_size=2, max_size=6), st.randoms())
def test_the_order_of_the_responses_does_not_matter(rows: list[tuple[float, int]], chance: Any) -> None:
    other = list(rows)
    chance.shuffle(other)
    one, two = (
        plackett_luce(torch.tensor([s for s, _ in some], dtype=torch.float64), [r for _, r in some])
        for some in (rows, other)
    )
    assert one.item() == pytest.approx(two.item(), abs=1e-9)


def test_the_pairs_of_a_ranking() -> None:
    first, second, preference = ranked_pairs(torch.tensor([0.0, 1.0, 2.0]), [1, 3, 1])
    assert list(zip(first.tolist(), second.tolist(), preference.tolist(), strict=True)) == [
        (0.0, 1.0, 1.0),
        (0.0, 2.0, 0.5),
        (1.0, 2.0, 0.0),
    ]
