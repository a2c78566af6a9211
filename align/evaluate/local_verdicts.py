"""Verdicts of a language model that runs here, without sampling: which of the three verdicts is likeliest as its reply.

So every question gets a verdict, the same at every run. The model gives it at once, without saying why first.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from align.data.lengths import like_lengths, token_ids
from align.evaluate.pairwise import VERDICTS

Path = tuple[int, ...]


class Tree(NamedTuple):
    """Replies (token ids) up to where each differs from all others.

    `chain` are the tokens that any of them shares with another; `ends[name]` are the (depth, token) of a reply, each
    predicted after `chain[:depth]`.
    """

    chain: Path
    ends: dict[str, list[tuple[int, int]]]


def tree_of(replies: dict[str, Sequence[int]]) -> Tree:
    """The tree of up to three replies, none of which begins another.

    Three leaves have two forks at most, and both are on one path: so one row of tokens has all that is needed.
    """

    def shared(one: Sequence[int], other: Sequence[int]) -> int:
        same = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        return next(same)

    forks = {
        name: max(shared(tokens, other) for key, other in replies.items() if key != name)
        for name, tokens in replies.items()
    }
    furthest = max(forks, key=lambda name: forks[name])
    chain = tuple(replies[furthest][: forks[furthest]])
    return Tree(chain, {name: list(enumerate(tokens[: forks[name] + 1])) for name, tokens in replies.items()})


def verdict_tree(tokenizer: Any) -> Tree:
    """The verdicts as this tokenizer writes them."""
    return tree_of({name: tokenizer.encode(f"Verdict: {name}", add_special_tokens=False) for name in VERDICTS})


def likeliest(
    model: Any, tokenizer: Any, questions: Sequence[str], batch_size: int, heard: Callable[[int, str], None]
) -> None:
    """Tell `heard(number of a question, verdict)` of each, batch by batch. `questions` fit the model's context.

    What a verdict's probability is made of is that of its tokens up to where it is no other verdict any more.
    """
    import torch

    from align.models.logprobs import Head, last_states

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    tree = verdict_tree(tokenizer)
    rows = [question_ids(tokenizer, question) for question in questions]
    head = Head.of(inner)
    with torch.no_grad():
        for numbers in like_lengths([len(row) for row in rows], batch_size, inner.device.type):
            batch = [torch.tensor([*rows[number], *tree.chain]) for number in numbers]
            ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True).to(inner.device)
            states = last_states(inner, ids)
            for row, number in enumerate(numbers):
                first = len(rows[number]) - 1
                logprobs = head.logits(states[row, first : first + len(tree.chain) + 1]).log_softmax(-1)
                total = {
                    name: float(sum(logprobs[depth, token] for depth, token in path))
                    for name, path in tree.ends.items()
                }
                heard(number, max(total, key=lambda name: total[name]))


def question_ids(tokenizer: Any, question: str) -> list[int]:
    """The question as the model reads it, up to where its reply begins."""
    return token_ids(tokenizer, [{"role": "user", "content": question}], generation=True)


def longest_question(tokenizer: Any, context: int | None) -> int | None:
    """The most tokens that a question may have, so that a verdict fits behind it; None where nothing limits it."""
    return None if context is None else context - len(verdict_tree(tokenizer).chain)
