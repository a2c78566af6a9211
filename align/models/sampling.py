"""Sampling responses from a causal model: one way, for rollouts, for evaluation, and for items to rank."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from align.data.lengths import token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class Samples(NamedTuple):
    """A batch of sampled responses. b: batch, q: longest prompt, t: longest response, both in tokens."""

    ids: "torch.Tensor"  # (b, q + t) int64: prompts padded on the left, responses on the right
    mask: "torch.Tensor"  # (b, q + t) int64: 1 on real tokens
    response_mask: "torch.Tensor"  # (b, t) bool: the response's tokens, its end-of-text token included
    ended: "torch.Tensor"  # (b,) bool: the model ended by itself
    texts: list[str]  # b decoded responses, without special tokens


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """(ids, mask), both (rows, longest row) int64, padded on the left. A mask says what is padding, never the id."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[number, width - len(row) :] = 1
    return ids, mask


def positions(mask: "torch.Tensor") -> "torch.Tensor":
    """Position of each token among the real ones, so that padding on either side does not shift a text. (b, n)."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def until_end(tokens: "torch.Tensor", end_ids: Sequence[int]) -> "tuple[torch.Tensor, torch.Tensor]":
    """Where each response stops: (mask (b, t) bool up to and with the first end token, ended (b,) bool)."""
    import torch

    is_end = torch.isin(tokens, torch.tensor(list(end_ids), device=tokens.device))
    mask = (is_end.cumsum(-1) - is_end.long()) == 0
    return mask, is_end.any(-1)


def end_ids(model: Any, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Every token that ends a response: the tokenizer's, and those of the model's generation config."""
    found = {tokenizer.eos_token_id}
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found.update([ids] if isinstance(ids, int) else ids or [])
    return sorted(found)


def sample(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Any],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> Samples:
    """One response to each prompt (lists of turns), drawn with torch's global random state; temperature 0 is greedy.

    The model samples as it stands: with whichever adapter is active.
    """
    import torch
    from transformers import GenerationConfig

    ends = end_ids(model, tokenizer)
    ids, mask = pad_left([token_ids(tokenizer, prompt, generation=True) for prompt in prompts], tokenizer.pad_token_id)
    ids, mask = ids.to(model.device), mask.to(model.device)
    choice: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        choice = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id, **choice
    )
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
    tokens = out[:, ids.shape[1] :]
    response_mask, ended = until_end(tokens, ends)
    texts = [
        tokenizer.decode(row[keep], skip_special_tokens=True) for row, keep in zip(tokens, response_mask, strict=True)
    ]
    return Samples(out, torch.cat([mask, response_mask.long()], dim=1), response_mask, ended, texts)


def response_logprobs(
    model: Any, ids: "torch.Tensor", mask: "torch.Tensor", length: int, temperature: float = 1.0
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Log-probabilities of the last `length` tokens under the model, and the entropies of their distributions.

    ids, mask: (b, n). Both results are (b, length), in nats, of the distribution at `temperature`; from a forward
    pass, since generate's own scores are of another layout. Entropies carry no gradient.
    """
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

    # only the states that predict response tokens go through the vocabulary head, the largest matrix of small models
    logits = model(
        input_ids=ids, attention_mask=mask, position_ids=positions(mask), logits_to_keep=length + 1, use_cache=False
    ).logits[:, -length - 1 : -1]
    logits = logits.float() / temperature
    return selective_log_softmax(logits, ids[:, -length:]), entropy_from_logits(logits.detach())
