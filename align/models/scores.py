"""What a reward model says of a text: rendered, tokenized and pooled in one way, in evaluation and in PPO."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from align.data.lengths import context_length, like_lengths, token_ids
from align.models.load import ModelSource, find_model, load_config, load_reward_model, load_tokenizer
from preferences.errors import BadInput

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from trl import ModelConfig

States = Callable[["torch.Tensor"], "torch.Tensor"]  # ids (b, n), padded on the right -> last hidden states (b, n, h)


def conversation_ids(tokenizer: "PreTrainedTokenizerBase", prompt: Any, response: str) -> list[int]:
    """The tokens that the reward run was trained on: prompt and response as one conversation under the template.

    So what a template writes after a turn's end (ChatML's line break, say) is there when PPO scores a rollout, too.
    """
    return token_ids(tokenizer, [*prompt, {"role": "assistant", "content": response}])


def fitting_ids(
    name: str, tokenizer: "PreTrainedTokenizerBase", context: int | None, prompts: Sequence[Any], texts: Sequence[str]
) -> list[tuple[int, ...]]:
    """The tokens of each (prompt, response) pair. Raises BadInput for one that doesn't fit the reward model `name`."""
    rows = [tuple(conversation_ids(tokenizer, p, text)) for p, text in zip(prompts, texts, strict=True)]
    for row, text in zip(rows, texts, strict=True):
        if context is not None and len(row) > context:
            raise BadInput(
                f"{name}: a prompt with its response has {len(row)} tokens, and the reward model's context is"
                f" {context}; take the row out, or take another reward model ({text[:40]!r})"
            )
    return rows


class RewardModel:
    """A reward run's score of a conversation, whoever computes the hidden states: the run's own model, loaded alone,
    or a base that it shares with other roles.

    The score is the head's output on the state of the last token. Rows are padded on the right, and a causal model
    never looks there, so neither the padding nor its id matters, also where a tokenizer pads with what texts end with.
    """

    def __init__(
        self, source: ModelSource, states: States, head: "torch.nn.Module", device: Any, context: int | None = None
    ) -> None:
        self.name = source.name
        self.tokenizer = load_tokenizer(source)
        self.states = states
        self.head = head
        self.device = device
        self.context = context or context_length(load_config(source))

    def scores(self, prompts: Sequence[Any], texts: Sequence[str], batch_size: int) -> list[float]:
        """One score a (prompt, response) pair, in the run's own units. Each different text goes through once.

        Raises BadInput for a conversation that doesn't fit the reward model's context.
        """
        rows = fitting_ids(self.name, self.tokenizer, self.context, prompts, texts)
        return self.scores_of_ids(rows, batch_size)

    def scores_of_ids(self, rows: Sequence[tuple[int, ...]], batch_size: int) -> list[float]:
        """The same of rows of token ids, none of them longer than the context."""
        import torch

        different = sorted(set(rows))  # pairs of a ranking share texts
        found: dict[tuple[int, ...], float] = {}
        device = torch.device(self.device)
        with torch.no_grad():
            for numbers in like_lengths([len(row) for row in different], batch_size, device.type):
                batch = [different[number] for number in numbers]
                ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in batch], batch_first=True)
                states = self.states(ids.to(device))
                last = states[torch.arange(len(batch)), torch.tensor([len(row) - 1 for row in batch])]
                scores = self.head(last.to(next(self.head.parameters()).dtype)).squeeze(-1).float()
                found.update(zip(batch, scores.tolist(), strict=True))
        return [found[row] for row in rows]


def load_scorer(name: str, device: Any, model_args: "ModelConfig | None" = None) -> RewardModel:
    """A reward run as a model of its own, quantised if `model_args` ask for it. Raises BadInput when `name` is none."""
    from align.models.logprobs import last_states

    source = find_model(name)
    model = load_reward_model(source, model_args).eval().requires_grad_(False)
    if model_args is None or not (model_args.load_in_4bit or model_args.load_in_8bit):  # else it is there already
        model = model.to(device)
    classifier = model.get_base_model() if hasattr(model, "get_base_model") else model
    # PEFT keeps the trained head in a wrapper that picks the active copy: calling it as a module is right either way
    return RewardModel(source, lambda ids: last_states(classifier, ids), classifier.score, device)
