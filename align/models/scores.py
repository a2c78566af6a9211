"""What a reward model says of a text: rendered, tokenized and pooled in one way, in evaluation and in PPO."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from align.data.lengths import token_ids
from align.models.sampling import pad_left, positions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Hidden = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def conversation_ids(tokenizer: "PreTrainedTokenizerBase", prompt: Any, response: str) -> list[int]:
    """The tokens that the reward run was trained on: prompt and response as one conversation under the template.

    So what a template writes after a turn's end (ChatML's line break, say) is there when PPO scores a rollout, too.
    """
    return token_ids(tokenizer, [*prompt, {"role": "assistant", "content": response}])


def last_token_scores(
    hidden: Hidden, head: "torch.nn.Module", rows: Sequence[Sequence[int]], pad_id: int, device: Any
) -> "torch.Tensor":
    """The head's output on the hidden state of each row's last token. rows: b token lists; result (b,) float32.

    `hidden` maps (ids, mask), both (b, n), to states (b, n, h). Padding is on the left, so the last token is last
    whatever its id is, also where a tokenizer pads with a token that texts end with.
    """
    ids, mask = pad_left(rows, pad_id)
    states = hidden(ids.to(device), mask.to(device))
    return head(states[:, -1].to(next(head.parameters()).dtype)).squeeze(-1).float()


def reward_scores(
    model: Any, tokenizer: "PreTrainedTokenizerBase", conversations: Sequence[tuple[Any, str]], batch_size: int
) -> list[float]:
    """Scores of (prompt, response) conversations by a reward model loaded alone, each different text once."""
    import torch

    classifier = model.get_base_model() if hasattr(model, "get_base_model") else model
    trunk = getattr(classifier, classifier.base_model_prefix)
    # PEFT keeps the trained head in a wrapper that picks the active copy: calling it as a module is right either way
    head = classifier.score

    def hidden(ids: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        states: torch.Tensor = trunk(
            input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False
        ).last_hidden_state
        return states

    rows = [tuple(conversation_ids(tokenizer, prompt, response)) for prompt, response in conversations]
    different = sorted(set(rows), key=len)  # the pairs of a ranking share texts; like lengths together: less padding
    scores: dict[tuple[int, ...], float] = {}
    with torch.no_grad():
        for start in range(0, len(different), batch_size):
            batch = different[start : start + batch_size]
            found = last_token_scores(hidden, head, batch, tokenizer.pad_token_id, model.device)
            scores.update(zip(batch, found.tolist(), strict=True))
    return [scores[row] for row in rows]
