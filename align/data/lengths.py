"""How long rows are in tokens: what fits the model, and what a recipe's `max_length` cuts or drops, said aloud."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from preferences.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def token_ids(tokenizer: "PreTrainedTokenizerBase", messages: Any, *, generation: bool = False) -> list[int]:
    """Token ids of a conversation under the tokenizer's chat template, or of a plain text.

    Raises BadInput for a conversation that the template refuses, such as one with a system turn for some models.
    """
    from jinja2 import TemplateError

    if isinstance(messages, str):
        return list(tokenizer(messages)["input_ids"])
    try:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=generation, return_dict=True)["input_ids"]
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in messages)
        raise BadInput(f"the model's chat template refuses a conversation of {roles}: {error}") from None
    return list(ids)


class _SystemTurns:
    """Looks once, at the first text with a system turn, whether the chat template keeps it: that of Mistral 7B v0.3
    shows it only until a response follows, so no text that is trained on or scored would hold it.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer, self.looked = tokenizer, False

    def check(self, text: Any) -> None:
        """Raise BadInput where it does not."""
        if self.looked or isinstance(text, str) or not text or text[0]["role"] != "system":
            return
        self.looked, said = True, "a system turn"
        roles = {"system": said, "user": "a user's turn", "assistant": "a response"}
        ids = token_ids(self.tokenizer, [{"role": role, "content": content} for role, content in roles.items()])
        if said not in self.tokenizer.decode(ids):
            raise BadInput(
                "the model's chat template leaves the system turn out as soon as a response follows; put what it says"
                " at the beginning of the user's turn"
            )


def like_lengths(lengths: Sequence[int], most: int, device: str) -> list[list[int]]:
    """Numbers of rows that go through a model together, the longest first: at most `most`, and of like length.

    Padding costs what real tokens cost. On a CPU a matrix of a hundred rows is as fast a token as one of a thousand,
    so little of it is worth a larger batch (5%); a GPU wants large ones (25%).
    """
    waste = 0.05 if device == "cpu" else 0.25
    groups: list[list[int]] = []
    real = 0
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        real += lengths[number]
        if groups and len(groups[-1]) < most:
            padded = (len(groups[-1]) + 1) * lengths[groups[-1][0]]
            if real >= (1 - waste) * padded:
                groups[-1].append(number)
                continue
        groups.append([number])
        real = lengths[number]
    return groups


def context_length(config: Any) -> int | None:
    """The most tokens that the model takes, or None where its configuration does not say."""
    return getattr(config, "max_position_embeddings", None)


def check_prompts(
    tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Any], new_tokens: int, context: int | None, where: str
) -> None:
    """Raise BadInput for the first prompt that leaves no room for `new_tokens` in the model's context."""
    for number, prompt in enumerate(prompts, start=1):
        with _at(f"{where}, prompt {number}"):
            length = len(token_ids(tokenizer, prompt, generation=True))
            if context is not None and length + new_tokens > context:
                raise BadInput(
                    f"{length} tokens and {new_tokens} new ones do not fit the model's context of {context};"
                    " shorten the prompt or ask for fewer new tokens"
                )


def prompts_that_fit(
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Any],
    new_tokens: int,
    context: int | None,
    max_length: int | None,
    where: str,
) -> list[int]:
    """The numbers of the prompts that are within `max_length` tokens and leave room for `new_tokens` in the context.

    Raises BadInput when none is.
    """
    lengths = []
    system = _SystemTurns(tokenizer)
    for number, prompt in enumerate(prompts, start=1):
        with _at(f"{where}, prompt {number}"):
            system.check(prompt)
            lengths.append(len(token_ids(tokenizer, prompt, generation=True)))
    limits = [limit for limit in (max_length, context and context - new_tokens) if limit is not None]
    fitting = [number for number, length in enumerate(lengths) if all(length <= limit for limit in limits)]
    if not fitting:
        raise BadInput(
            f"{where}: every one of its {len(prompts)} prompts is too long; the shortest has {min(lengths)} tokens, and"
            f" {min(limits)} are allowed (max_prompt_length {max_length}, and the model's context of {context} less"
            f" {new_tokens} new tokens)"
        )
    return fitting


def whole_texts(row: dict[str, Any]) -> tuple[Any, Any]:
    """(prompt + chosen, prompt + rejected) of a preference row; its prompt may also stand in both already."""
    prompt = row.get("prompt")
    if prompt is None:
        return row["chosen"], row["rejected"]
    return prompt + row["chosen"], prompt + row["rejected"]


def check_pairs(
    tokenizer: "PreTrainedTokenizerBase", rows: Any, max_length: int | None, context: int | None, where: str
) -> int:
    """Count the rows longer than `max_length` tokens.

    Raises BadInput for a prompt longer than the model's context, for a row longer than the context where
    `max_length` does not keep it within, and when no row is within `max_length`.
    """
    return _check(tokenizer, rows, whole_texts, max_length, context, where)


def check_rankings(
    tokenizer: "PreTrainedTokenizerBase", rows: Any, max_length: int | None, context: int | None, where: str
) -> int:
    """The same for rows with `prompt` and several `responses`."""

    def texts(row: dict[str, Any]) -> list[Any]:
        return [row["prompt"] + response for response in row["responses"]]

    return _check(tokenizer, rows, texts, max_length, context, where)


def check_demonstrations(
    tokenizer: "PreTrainedTokenizerBase", rows: Any, max_length: int | None, context: int | None, where: str
) -> int:
    """The same for texts to imitate: `prompt` and `completion`, `messages`, or `text`."""
    return _check(tokenizer, rows, _demonstration, max_length, context, where)


def _demonstration(row: dict[str, Any]) -> list[Any]:
    if row.get("completion") is None:
        return [row["messages"] if row.get("messages") is not None else row["text"]]
    return [row["prompt"] + row["completion"]]


def _check(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Any,
    texts: Callable[[dict[str, Any]], Sequence[Any]],
    max_length: int | None,
    context: int | None,
    where: str,
) -> int:
    """texts: the whole texts of a row. A prompt is part of them, and is looked at only where it may be too long."""
    longer = 0
    system = _SystemTurns(tokenizer)
    for number, row in enumerate(rows, start=1):
        with _at(f"{where}, row {number}"):
            whole = texts(row)
            system.check(whole[0])
            longest = max(len(token_ids(tokenizer, text)) for text in whole)
            alone = context is not None and longest >= context and row.get("prompt") is not None
            prompt = len(token_ids(tokenizer, row["prompt"])) if alone else 0
            if context is not None and (
                prompt >= context or (longest > context and (max_length is None or max_length > context))
            ):
                remedy = "shorten the prompt" if prompt >= context else f"set max_length to {context} or less"
                raise BadInput(
                    f"{max(prompt, longest)} tokens do not fit the model's context of {context}; {remedy},"
                    " or take the row out"
                )
        longer += max_length is not None and longest > max_length
    if longer == len(rows):
        raise BadInput(
            f"{where}: every one of its {longer} rows is longer than max_length {max_length}; raise max_length"
        )
    return longer


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Put where the row stands before what is wrong with it."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def comes_to_each_row(args: Any, rows: int, processes: int) -> bool:
    """Whether a run sees so many rows at least once; what `args` (TRL's) say of epochs may be a part of one."""
    a_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    seen = args.max_steps * a_step if args.max_steps > 0 else args.num_train_epochs * rows
    return bool(seen >= rows)
