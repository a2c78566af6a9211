"""PPO's losses: pure functions on tensors. Sums over tokens, so that the caller divides by the count of the whole
optimiser step, and neither padding nor the size of a micro-batch changes the result. b: batch, t: response tokens.
"""

from typing import NamedTuple

import torch


class PolicyLoss(NamedTuple):
    """Scalars, each a sum over the mask's tokens."""

    loss: torch.Tensor
    clipped: torch.Tensor  # tokens whose clipped term was the larger one
    approx_kl: torch.Tensor  # k2 of old against new: 0.5 (log ratio)^2, TRL's policy/approxkl_avg
    ratio: torch.Tensor


def policy_loss(
    logprobs: torch.Tensor, old_logprobs: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, cliprange: float
) -> PolicyLoss:
    """Sum of max(-A r, -A clip(r, 1 - c, 1 + c)) with r = exp(logprobs - old_logprobs) (arXiv 1707.06347, eq. 7).

    All inputs (b, t).
    """
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    limited = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return PolicyLoss(
        loss=torch.where(mask, torch.maximum(plain, limited), 0.0).sum(),
        clipped=((limited > plain) & mask).sum().detach(),
        approx_kl=(0.5 * log_ratio.square()).sum().detach(),
        ratio=torch.where(mask, ratio, 0.0).sum().detach(),
    )


class ValueLoss(NamedTuple):
    """Scalars, each a sum over the mask's tokens."""

    loss: torch.Tensor
    clipped: torch.Tensor


def value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor, cliprange_value: float
) -> ValueLoss:
    """Sum of 0.5 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2), all inputs (b, t) (OpenAI baselines, ppo2)."""
    # zeros outside the mask before squaring: a NaN's gradient would be NaN even where the loss drops it
    values, old_values, returns = (torch.where(mask, x, 0.0) for x in (values, old_values, returns))
    limited = torch.minimum(torch.maximum(values, old_values - cliprange_value), old_values + cliprange_value)
    plain_error, limited_error = (values - returns).square(), (limited - returns).square()
    return ValueLoss(
        loss=torch.where(mask, 0.5 * torch.maximum(plain_error, limited_error), 0.0).sum(),
        clipped=((limited_error > plain_error) & mask).sum().detach(),
    )
