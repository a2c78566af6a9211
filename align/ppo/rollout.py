"""Rollouts: what the policy says to a batch of prompts, and what the frozen roles think of every token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from align.models.roles import Roles
from align.models.sampling import sample
from align.ppo.scoring import score_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Rollouts(NamedTuple):
    """b: batch, q: longest prompt, t: longest response, in tokens. All is as it was when the rollouts were made."""

    prompts: list[Any]
    texts: list[str]
    ids: torch.Tensor  # (b, q + t)
    mask: torch.Tensor  # (b, q + t) 1 on real tokens
    response_mask: torch.Tensor  # (b, t) bool
    ended: torch.Tensor  # (b,) bool
    scores: torch.Tensor  # (b,) the reward role's score, less the penalty for not ending
    logprobs: torch.Tensor  # (b, t) policy
    reference_logprobs: torch.Tensor  # (b, t)
    values: torch.Tensor  # (b, t)
    entropy: torch.Tensor  # (b, t) of the policy


def make_rollouts(
    roles: Roles,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Any],
    *,
    response_length: int,
    temperature: float,
    missing_eos_penalty: float | None,
    batch_size: int,
) -> Rollouts:
    """Sample a response to each prompt, and look at it with all four roles, `batch_size` sequences at once."""
    with roles.acting("policy") as model:
        samples = sample(model, tokenizer, prompts, max_new_tokens=response_length, temperature=temperature)
    scores = score_texts(roles, tokenizer, prompts, samples.texts, batch_size)
    if missing_eos_penalty is not None:
        scores = scores - missing_eos_penalty * (~samples.ended).float()
    length = samples.response_mask.shape[1]
    parts: dict[str, list[torch.Tensor]] = {"policy": [], "entropy": [], "reference": [], "value": []}
    with torch.no_grad():
        for start in range(0, len(prompts), batch_size):
            ids, mask = samples.ids[start : start + batch_size], samples.mask[start : start + batch_size]
            logprobs, entropy = roles.logprobs("policy", ids, mask, length, temperature)
            parts["policy"].append(logprobs)
            parts["entropy"].append(entropy)
            parts["reference"].append(roles.logprobs("reference", ids, mask, length, temperature)[0])
            parts["value"].append(roles.values(ids, mask, length))
    return Rollouts(
        list(prompts),
        samples.texts,
        samples.ids,
        samples.mask,
        samples.response_mask,
        samples.ended,
        scores,
        torch.cat(parts["policy"]),
        torch.cat(parts["reference"]),
        torch.cat(parts["value"]),
        torch.cat(parts["entropy"]),
    )
