"""Rewards per token and their advantages: pure functions on tensors. b: batch, t: response tokens."""

from typing import NamedTuple

import torch


class Advantages(NamedTuple):
    """Both (b, t); zero where the mask is False."""

    advantages: torch.Tensor
    returns: torch.Tensor


def token_rewards(
    scores: torch.Tensor, logprobs: torch.Tensor, reference_logprobs: torch.Tensor, mask: torch.Tensor, kl_coef: float
) -> torch.Tensor:
    """-kl_coef * (log pi - log pi_ref) at every token, and the score on top at the last one.

    scores: (b,). logprobs, reference_logprobs, mask: (b, t); mask True on response tokens, each row at least one.
    The KL estimate is k1 (http://joschu.net/blog/kl-approx.html), as in InstructGPT (arXiv 2203.02155, eq. 2).
    Returns (b, t), zero outside the mask.
    """
    rewards = -kl_coef * (logprobs - reference_logprobs) * mask
    last = mask.long().cumsum(-1).argmax(-1)  # the first place where the count is highest: the last True
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def gae(rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float) -> Advantages:
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16), backwards over a finished episode.

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lam A_{t+1};  return_t = A_t + V_t.
    rewards, values, mask: (b, t). A response is contiguous from its first token, and after its last token there is
    nothing to come: V and A are 0 there, whatever stands in `values`.
    """
    keep = mask.to(values.dtype)
    values = values * keep
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for step in reversed(range(values.shape[1])):
        delta = rewards[:, step] + gamma * next_value - values[:, step]
        next_advantage = (delta + gamma * lam * next_advantage) * keep[:, step]
        next_value = values[:, step]
        advantages[:, step] = next_advantage
    return Advantages(advantages, (advantages + values) * keep)


def whiten(values: torch.Tensor, mask: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """(values - mean) / sqrt(variance + 1e-8) on the mask, 0 elsewhere.

    The moments are of the whole batch, over all processes, so that how the batch is spread makes no difference.
    Detail 7 of Huang et al., The 37 Implementation Details of PPO (ICLR blog track 2022).
    """
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask
