"""Losses that TRL lacks: pure functions on tensors."""

import torch
from torch.nn.functional import logsigmoid


def soft_bradley_terry(
    first: torch.Tensor, second: torch.Tensor, preference: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Weighted mean of -[p log s(d) + (1 - p) log s(-d)], d = first - second, s the logistic function.

    All inputs (pairs,): the scores of two responses, the probability p in [0, 1] that the first is the better one, and
    how much to trust the row. This is the cross-entropy of Bradley and Terry's model (1952) against what raters said;
    with p = 1 and equal weights it is the usual reward-model loss (arXiv 2203.02155, eq. 1), and p = 0.5 is a tie.
    Where every weight is 0, the loss is 0. Returns a scalar.
    """
    difference = first - second
    losses = -(preference * logsigmoid(difference) + (1 - preference) * logsigmoid(-difference))
    return (weight * losses).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
