"""The reward role: what a rollout's text is worth."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from align.models.roles import Roles
from align.models.scores import conversation_ids, last_token_scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def score_texts(
    roles: Roles, tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Any], texts: Sequence[str], batch_size: int
) -> torch.Tensor:
    """(b,) float32: the score that the reward run, loaded alone, gives each prompt with its response.

    The text is rendered anew under the chat template, as the reward run saw it in training, instead of scoring the
    rollout's own tokens, whose end differs (ChatML writes a line break after <|im_end|>, generation stops before it).
    """
    rows = [conversation_ids(tokenizer, prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    hidden = partial(roles.hidden, "reward")
    with torch.no_grad():
        parts = [
            last_token_scores(
                hidden, roles.score_head, rows[start : start + batch_size], tokenizer.pad_token_id, roles.device
            )
            for start in range(0, len(rows), batch_size)
        ]
    return torch.cat(parts)
