"""Rewards per token and their advantages: pure functions on tensors. b: batch, t: response tokens.

A mask is True on response tokens; a response is contiguous from its first token. A row may be empty (its rollout got
no score): it comes out as zeros and counts nowhere.
"""

from typing import Literal, NamedTuple

import torch


class Advantages(NamedTuple):
    """Both (b, t); zero where the mask is False."""

    advantages: torch.Tensor
    returns: torch.Tensor


def kl_estimate(
    logprobs: torch.Tensor, reference_logprobs: torch.Tensor, estimator: Literal["k1", "k2", "k3"]
) -> torch.Tensor:
    """Schulman's estimates of KL(pi || pi_ref) from a token drawn from pi (http://joschu.net/blog/kl-approx.html).

    With l = log pi - log pi_ref: k1 = l (unbiased), k2 = l^2 / 2 (low variance, biased, and its gradient is the KL's
    own), k3 = exp(-l) - 1 + l (unbiased, never negative). Any shape.
    """
    log_ratio = logprobs - reference_logprobs
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio.square()
    return torch.expm1(-log_ratio) + log_ratio


def token_rewards(scores: torch.Tensor, kl: torch.Tensor, mask: torch.Tensor, kl_coef: float) -> torch.Tensor:
    """-kl_coef * kl at every token, and the score on top at the last one (InstructGPT, arXiv 2203.02155, eq. 2).

    scores: (b,). kl, mask: (b, t). Returns (b, t), zero outside the mask.
    """
    rewards = torch.where(mask, -kl_coef * kl, 0.0)
    last = mask.long().cumsum(-1).argmax(-1)  # the first place where the count is highest: the last True
    rewards[torch.arange(len(scores), device=scores.device), last] += torch.where(mask.any(-1), scores, 0.0)
    return rewards


def gae(rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float) -> Advantages:
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16), backwards over a finished episode.

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lam A_{t+1};  return_t = A_t + V_t.
    rewards, values, mask: (b, t). After a response's last token there is nothing to come: V and A are 0 there,
    whatever stands in `values`.
    """
    values = torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for step in reversed(range(values.shape[1])):
        delta = rewards[:, step] + gamma * next_value - values[:, step]
        next_advantage = torch.where(mask[:, step], delta + gamma * lam * next_advantage, 0.0)
        next_value = values[:, step]
        advantages[:, step] = next_advantage
    return Advantages(advantages, advantages + values)


def whiten(values: torch.Tensor, mask: torch.Tensor, *, shift_mean: bool) -> torch.Tensor:
    """To variance 1 over the mask's values, and to mean 0 if `shift_mean`; 0 elsewhere. Shapes (b, t).

    (x - mean) / sqrt(variance + 1e-8), the variance with n in the denominator, over the *whole* batch, so that neither
    mini-batches nor processes make a difference. Without `shift_mean` the mean is put back afterwards (rewards:
    their sign must stay; openai/lm-human-preferences, `utils.whiten`).
    """
    values = torch.where(mask, values, 0.0)  # a NaN outside the mask must not come back as a gradient
    inside = values[mask]
    mean, variance = inside.mean(), inside.var(correction=0)
    white = (values - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(mask, white if shift_mean else white + mean, 0.0)


def adapt_kl_coef(kl_coef: float, kl: float, target: float, horizon: int, episodes: int) -> float:
    """The next KL coefficient, from the mean KL per response in nats that `episodes` rollouts had.

    coefficient * (1 + clip(kl / target - 1, -0.2, 0.2) * episodes / horizon): Ziegler et al., arXiv 1909.08593,
    section 2.2.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * episodes / horizon)


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the mask: 1 is a perfect value model, 0 a constant one."""
    target = returns[mask]
    return float(1 - (target - values[mask]).var(correction=0) / target.var(correction=0).clamp(min=1e-8))
