"""Exact numbers for PPO's formulas, worked by hand or taken from their definitions."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.ppo.advantages import adapt_kl_coef, explained_variance, gae, kl_estimate, token_rewards, whiten
from align.ppo.losses import policy_loss, value_loss

YES = torch.tensor([[True, True, True]])
NAN = math.nan
Estimator = Literal["k1", "k2", "k3"]


def test_gae_by_hand() -> None:
    # gamma 0.9, lambda 0.8; r = 0, 0, 1; V = 0.5, 0.4, 0.3
    # delta_3 = 1 - 0.3 = 0.7;                    A_3 = 0.7
    # delta_2 = 0.9 * 0.3 - 0.4 = -0.13;          A_2 = -0.13 + 0.72 * 0.7 = 0.374
    # delta_1 = 0.9 * 0.4 - 0.5 = -0.14;          A_1 = -0.14 + 0.72 * 0.374 = 0.12928
    advantages, returns = gae(torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.4, 0.3]]), YES, 0.9, 0.8)
    assert advantages[0].tolist() == pytest.approx([0.12928, 0.374, 0.7], abs=1e-6)
    assert returns[0].tolist() == pytest.approx([0.62928, 0.774, 1.0], abs=1e-6)


def test_gae_with_lambda_one_is_the_return_to_come_less_the_value() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[3.0, 3.0, 3.0]])
    advantages, returns = gae(rewards, values, YES, 0.5, 1.0)
    # returns: 4; 2 + 0.5 * 4 = 4; 1 + 0.5 * 4 = 3
    assert returns[0].tolist() == pytest.approx([3.0, 4.0, 4.0])
    assert advantages[0].tolist() == pytest.approx([0.0, 1.0, 1.0])


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.integers(0, 4), st.floats(0.5, 1), st.floats(0, 1))
def test_gae_ignores_padding(rewards: list[float], padding: int, gamma: float, lam: float) -> None:
    n = len(rewards)
    values = [0.3 * i for i in range(n)]
    plain = gae(torch.tensor([rewards]), torch.tensor([values]), torch.ones(1, n, dtype=torch.bool), gamma, lam)
    padded = gae(
        torch.tensor([rewards + [0.0] * padding]),
        torch.tensor([values + [99.0] * padding]),
        torch.tensor([[True] * n + [False] * padding]),
        gamma,
        lam,
    )
    assert padded.advantages[0, :n].tolist() == plain.advantages[0].tolist()
    assert padded.returns[0, :n].tolist() == plain.returns[0].tolist()
    assert padded.advantages[0, n:].tolist() == [0.0] * padding


def test_token_rewards_put_the_score_on_the_last_token() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    kl = torch.tensor([[0.5, -1.0, -4.0], [0.0, 1.0, 0.0]])
    rewards = token_rewards(torch.tensor([10.0, 20.0]), kl, mask, 0.1)
    assert rewards[0].tolist() == pytest.approx([-0.05, 10.1, 0.0])
    assert rewards[1].tolist() == pytest.approx([0.0, -0.1, 20.0])


def test_kl_estimates_by_hand() -> None:
    # log pi - log pi_ref = log 2: k1 = log 2, k2 = log(2)^2 / 2, k3 = 1/2 - 1 + log 2
    # log pi - log pi_ref = -log 2: k1 = -log 2, k2 the same, k3 = 2 - 1 - log 2
    logprobs, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.0 - math.log(2), -2.0 + math.log(2)])
    assert kl_estimate(logprobs, reference, "k1").tolist() == pytest.approx([0.693147, -0.693147], abs=1e-6)
    assert kl_estimate(logprobs, reference, "k2").tolist() == pytest.approx([0.240227, 0.240227], abs=1e-6)
    assert kl_estimate(logprobs, reference, "k3").tolist() == pytest.approx([0.193147, 0.306853], abs=1e-6)


def expected_estimate(logits: torch.Tensor, reference: torch.Tensor, estimator: Estimator) -> tuple[float, list[float]]:
    """(mean of the estimate over tokens drawn from pi, mean of its gradient in the logits), both summed exactly."""
    mean, gradient = 0.0, torch.zeros_like(logits)
    probabilities = logits.detach().softmax(-1)
    for token, probability in enumerate(probabilities):
        logits = logits.detach().requires_grad_()
        estimate = kl_estimate(logits.log_softmax(-1)[token], reference.log_softmax(-1)[token], estimator)
        estimate.backward()
        mean += float(probability * estimate.detach())
        gradient += probability * logits.grad
    return mean, gradient.tolist()


def exact_kl(logits: torch.Tensor, reference: torch.Tensor, *, reverse: bool = False) -> tuple[float, list[float]]:
    """(KL(pi || pi_ref), its gradient in pi's logits); of KL(pi_ref || pi) if `reverse`."""
    logits = logits.detach().requires_grad_()
    log_p, log_q = logits.log_softmax(-1), reference.log_softmax(-1)
    if reverse:
        log_p, log_q = log_q, log_p
    kl = (log_p.exp() * (log_p - log_q)).sum()
    kl.backward()
    return kl.item(), logits.grad.tolist()


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=5), st.floats(-2, 2), st.integers(0, 4))
def test_what_the_kl_estimators_and_their_gradients_are_on_average(
    numbers: list[float], change: float, place: int
) -> None:
    logits = torch.tensor(numbers, dtype=torch.float64)
    reference = logits.flip(0).clone()
    reference[place % len(numbers)] += change
    kl, gradient = exact_kl(logits, reference)
    _, reverse_gradient = exact_kl(logits, reference, reverse=True)
    k1, k1_gradient = expected_estimate(logits, reference, "k1")
    k2, k2_gradient = expected_estimate(logits, reference, "k2")
    k3, k3_gradient = expected_estimate(logits, reference, "k3")
    # k1 and k3 are unbiased; k2 is not
    assert k1 == pytest.approx(kl, abs=1e-9)
    assert k3 == pytest.approx(kl, abs=1e-9)
    assert k2 >= 0
    # as losses: k1 teaches nothing, k2 the KL, k3 the KL in the other direction, KL(pi_ref || pi)
    assert k1_gradient == pytest.approx([0.0] * len(numbers), abs=1e-9)
    assert k2_gradient == pytest.approx(gradient, abs=1e-9)
    assert k3_gradient == pytest.approx(reverse_gradient, abs=1e-9)


def test_k2_is_the_kl_of_neighbours_and_too_large_for_others() -> None:
    # 1/2, 1/2 against 1/4, 3/4: KL = (log(2) + log(2/3)) / 2 = 0.143841; k2 = (log(2)^2 + log(2/3)^2) / 4 = 0.161214
    pi, other = torch.zeros(2, dtype=torch.float64), torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    assert exact_kl(pi, other)[0] == pytest.approx(0.143841, abs=1e-6)
    assert expected_estimate(pi, other, "k2")[0] == pytest.approx(0.161214, abs=1e-6)
    near = torch.tensor([0.499, 0.501], dtype=torch.float64).log()
    assert expected_estimate(pi, near, "k2")[0] == pytest.approx(exact_kl(pi, near)[0], rel=1e-4)


@given(st.floats(-30, 30, width=32))
def test_k3_is_never_negative(log_ratio: float) -> None:
    estimate = kl_estimate(torch.tensor([log_ratio]), torch.zeros(1), "k3")
    assert estimate.item() >= 0


def test_adapt_kl_coef_by_hand() -> None:
    # 9 nats where 6 are wanted: error 0.5, clipped to 0.2: 0.1 * (1 + 0.2 * 64 / 640) = 0.102
    assert adapt_kl_coef(0.1, 9.0, target=6.0, horizon=640, episodes=64) == pytest.approx(0.102)
    # 6.6 nats: error 0.1: 0.1 * (1 + 0.1 * 64 / 640) = 0.101;   5.4 nats: 0.099
    assert adapt_kl_coef(0.1, 6.6, target=6.0, horizon=640, episodes=64) == pytest.approx(0.101)
    assert adapt_kl_coef(0.1, 5.4, target=6.0, horizon=640, episodes=64) == pytest.approx(0.099)
    # an estimate below zero (k1's mean over few rollouts) counts like any KL that is far too small
    assert adapt_kl_coef(0.1, -1.0, target=6.0, horizon=640, episodes=64) == pytest.approx(0.098)
    assert adapt_kl_coef(0.1, 6.0, target=6.0, horizon=640, episodes=64) == 0.1


@given(st.floats(0.001, 10), st.floats(-100, 100), st.floats(0.01, 100), st.integers(1, 512), st.integers(1, 100))
def test_adapt_kl_coef_moves_towards_the_target_and_stays_positive(
    kl_coef: float, kl: float, target: float, episodes: int, times: int
) -> None:
    horizon = episodes * times
    after = adapt_kl_coef(kl_coef, kl, target, horizon, episodes)
    assert after > 0
    assert abs(after / kl_coef - 1) <= 0.2 / times + 1e-9
    assert (after >= kl_coef) if kl > target else (after <= kl_coef)


def test_explained_variance_by_hand() -> None:
    # returns 1, 2, 6: variance 14/3; a constant guess leaves all of it, a perfect one none, the mean error counts not
    mask = torch.tensor([[True, True, True, False]])
    returns = torch.tensor([[1.0, 2.0, 6.0, 50.0]])
    assert explained_variance(returns, returns, mask) == pytest.approx(1.0)
    assert explained_variance(returns + 7, returns, mask) == pytest.approx(1.0, abs=1e-6)
    assert explained_variance(torch.full((1, 4), 2.5), returns, mask) == pytest.approx(0.0, abs=1e-6)
    # guesses 0, 2, 4: errors 1, 0, 2, variance 2/3: 1 - (2/3) / (14/3) = 6/7
    assert explained_variance(torch.tensor([[0.0, 2.0, 4.0, NAN]]), returns, mask) == pytest.approx(6 / 7)


def test_whiten_gives_mean_zero_and_variance_one() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    values = torch.tensor([[1.0, 2.0], [6.0, 100.0]])
    white = whiten(values, mask, shift_mean=True)
    assert white[mask].mean().item() == pytest.approx(0.0, abs=1e-6)
    assert white[mask].square().mean().item() == pytest.approx(1.0, abs=1e-6)
    assert white[1, 1].item() == 0.0
    # mean 3, variance (4 + 1 + 9) / 3, deviation 2.160247: -2, -1 and 3 over it
    assert white[mask].tolist() == pytest.approx([-0.925820, -0.462910, 1.388730], abs=1e-6)


def test_whiten_without_shifting_keeps_the_mean() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    white = whiten(torch.tensor([[1.0, 2.0], [6.0, 100.0]]), mask, shift_mean=False)
    assert white[mask].tolist() == pytest.approx([3 - 0.925820, 3 - 0.462910, 3 + 1.388730], abs=1e-6)
    assert white[1, 1].item() == 0.0


def test_whiten_leaves_nothing_of_values_that_are_all_the_same() -> None:
    assert whiten(torch.full((1, 3), 5.0), YES, shift_mean=True).tolist() == [[0.0, 0.0, 0.0]]
    assert whiten(torch.full((1, 3), 5.0), YES, shift_mean=False).tolist() == [[5.0, 5.0, 5.0]]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.integers(0, 4), st.booleans())
def test_whiten_ignores_padding(numbers: list[float], padding: int, shift_mean: bool) -> None:
    n = len(numbers)
    plain = whiten(torch.tensor([numbers]), torch.ones(1, n, dtype=torch.bool), shift_mean=shift_mean)
    padded = whiten(
        torch.tensor([numbers + [99.0] * padding]),
        torch.tensor([[True] * n + [False] * padding]),
        shift_mean=shift_mean,
    )
    assert padded[0].tolist() == plain[0].tolist() + [0.0] * padding


@pytest.mark.parametrize("nothing", [0.0, NAN, math.inf, -math.inf])
def test_a_row_without_a_response_is_zeros_and_counts_nowhere(nothing: float) -> None:
    mask = torch.tensor([[True, True, True], [False, False, False]])
    rows = torch.tensor([[0.5, -1.0, 2.0], [nothing] * 3])
    assert token_rewards(torch.tensor([4.0, nothing]), rows, mask, 0.1).tolist() == [
        pytest.approx([-0.05, 0.1, 3.8]),
        [0.0, 0.0, 0.0],
    ]
    alone = gae(rows[:1], rows[:1], YES, 0.9, 0.8)
    both = gae(rows, rows, mask, 0.9, 0.8)
    assert both.advantages.tolist() == [alone.advantages[0].tolist(), [0.0] * 3]
    assert both.returns.tolist() == [alone.returns[0].tolist(), [0.0] * 3]
    for shift_mean in (True, False):
        white = whiten(rows, mask, shift_mean=shift_mean)
        assert white.tolist() == [whiten(rows[:1], YES, shift_mean=shift_mean)[0].tolist(), [0.0] * 3]
    assert explained_variance(rows * 0.5, rows, mask) == pytest.approx(0.75)
    assert policy_loss(rows, rows, rows, mask, 0.2).loss.item() == pytest.approx(-1.5)
    assert policy_loss(rows, rows, rows, mask, 0.2).ratio.item() == 3.0
    assert value_loss(rows, rows, rows, mask, 0.2).loss.item() == 0.0


@pytest.mark.parametrize("nothing", [NAN, math.inf, -math.inf])
def test_what_stands_outside_the_mask_reaches_no_gradient(nothing: float) -> None:
    mask = torch.tensor([[True, True, True, False, False], [True, False, False, False, False], [False] * 5])
    rows = torch.randn(4, *mask.shape, generator=torch.Generator().manual_seed(0))

    def all_of_it(outside: float) -> tuple[list[float], list[list[list[float]]]]:
        a, b, c, d = inputs = [torch.where(mask, row, outside).requires_grad_() for row in rows]
        scores = torch.tensor([1.0, 2.0, outside], requires_grad=True)
        rewards = token_rewards(scores, kl_estimate(a, b, "k1"), mask, 0.3)
        advantages, returns = gae(rewards, c, mask, 0.9, 0.8)
        results = [
            rewards.square().sum(),
            advantages.square().sum(),
            returns.square().sum(),
            whiten(c, mask, shift_mean=True)[0, 0],
            whiten(c, mask, shift_mean=False)[0, 0],
            policy_loss(a, b, d, mask, 0.2).loss,
            value_loss(a, b, d, mask, 0.2).loss,
        ]
        sum(results).backward()
        gradients = [row.grad for row in inputs]
        assert all((gradient[~mask] == 0).all() for gradient in gradients)
        assert scores.grad[2] == 0
        return [result.item() for result in results], [gradient.tolist() for gradient in gradients]

    results, gradients = all_of_it(0.0)
    assert all(map(math.isfinite, results))
    assert all_of_it(nothing) == (results, gradients)


def test_policy_loss_clips_as_in_the_paper() -> None:
    # ratios 1.5, 0.5, 1.5, 0.5 with c = 0.2 and A = 1, 1, -1, -1:
    # -min(A r, A clip r) = -1.2 (clipped), -0.5, 1.5, 0.8 (clipped)
    logs = [math.log(1.5), math.log(0.5)] * 2
    loss = policy_loss(
        torch.tensor([logs]),
        torch.zeros(1, 4),
        torch.tensor([[1.0, 1.0, -1.0, -1.0]]),
        torch.ones(1, 4, dtype=torch.bool),
        0.2,
    )
    assert loss.loss.item() == pytest.approx(-1.2 - 0.5 + 1.5 + 0.8)
    assert loss.clipped.item() == 2
    assert loss.ratio.item() == pytest.approx(4.0)
    assert loss.approx_kl.item() == pytest.approx(math.log(1.5) ** 2 + math.log(0.5) ** 2)


def test_value_loss_takes_the_worse_of_clipped_and_plain() -> None:
    # V = 1 and 0.1, V_old = 0, R = 0.5 and 1, c = 0.2:
    # plain 0.25, clipped to 0.2: 0.09 -> 0.25;   plain 0.81, inside the clip -> 0.81
    # V = 1, R = 2, V_old = 0: plain 1, clipped (0.2 - 2)^2 = 3.24 -> 3.24
    loss = value_loss(torch.tensor([[1.0, 0.1, 1.0]]), torch.zeros(1, 3), torch.tensor([[0.5, 1.0, 2.0]]), YES, 0.2)
    assert loss.loss.item() == pytest.approx(0.5 * (0.25 + 0.81 + 3.24))
    assert loss.clipped.item() == 1


def test_losses_ignore_padding_whatever_it_holds() -> None:
    mask = torch.tensor([[True, False]])
    policy = policy_loss(
        torch.tensor([[0.0, 80.0]]), torch.tensor([[0.0, -80.0]]), torch.tensor([[1.0, 1.0]]), mask, 0.2
    )
    assert policy.loss.item() == -1.0
    value = value_loss(torch.tensor([[1.0, 9.0]]), torch.zeros(1, 2), torch.tensor([[1.0, -9.0]]), mask, 0.2)
    assert value.loss.item() == pytest.approx(0.5 * 0.64)  # clipped to 0.2
