"""Exact numbers for PPO's formulas, worked by hand or taken from their definitions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.ppo.advantages import gae, token_rewards, whiten
from align.ppo.losses import policy_loss, value_loss

YES = torch.tensor([[True, True, True]])


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
    logprobs = torch.tensor([[-1.0, -2.0, -7.0], [-1.0, -1.0, -1.0]])
    reference = torch.tensor([[-1.5, -1.0, -3.0], [-1.0, -2.0, -1.0]])
    rewards = token_rewards(torch.tensor([10.0, 20.0]), logprobs, reference, mask, 0.1)
    assert rewards[0].tolist() == pytest.approx([-0.05, 10.1, 0.0])
    assert rewards[1].tolist() == pytest.approx([0.0, -0.1, 20.0])


def test_whiten_gives_mean_zero_and_variance_one() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    values = torch.tensor([[1.0, 2.0], [6.0, 100.0]])
    white = whiten(values, mask, torch.tensor(3.0), torch.tensor(14 / 3))  # var of 1, 2, 6: (4 + 1 + 9) / 3
    assert white[mask].mean().item() == pytest.approx(0.0, abs=1e-6)
    assert white[mask].square().mean().item() == pytest.approx(1.0, abs=1e-6)
    assert white[1, 1].item() == 0.0


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
