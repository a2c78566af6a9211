"""Judges: what gives a response a score. Which response of two is better follows from the scores."""

from collections.abc import Callable, Sequence
from typing import Any

from align.data.lengths import check_prompts, context_length
from align.models.load import find_model, load_config, load_tokenizer
from align.models.rewards import load_as_trained, load_function
from preferences.errors import BadInput

Conversation = tuple[list[dict[str, str]], str]  # (prompt, response)
Scorer = Callable[[Sequence[Conversation]], list[float]]


def reward_judge(name: str, prompts: Sequence[Any], new_tokens: int, batch_size: int) -> Scorer:
    """A reward run, loaded alone. Raises BadInput when `name` is not a reward model, or when one of the prompts
    with so many new tokens does not fit it.
    """
    source = find_model(name)
    check_prompts(
        load_tokenizer(source), prompts, new_tokens, context_length(load_config(source)), f"the reward model {name}"
    )
    model = load_as_trained(name)

    def score(conversations: Sequence[Conversation]) -> list[float]:
        return model.scores([prompt for prompt, _ in conversations], [text for _, text in conversations], batch_size)

    return score


def function_judge(name: str) -> Scorer:
    """A Python function of your own, `file.py:function`, from (prompt, response text) to a number.

    It is your code, run as it stands. Raises BadInput when it can't be loaded or gives no number.
    """
    function = load_function(name, "truth")

    def score(conversations: Sequence[Conversation]) -> list[float]:
        scores = []
        for prompt, text in conversations:
            value: Any = function(prompt, text)
            if not isinstance(value, (int, float)) or value != value:
                raise BadInput(f"{name}: gave {value!r} for a response, and a judge gives a number")
            scores.append(float(value))
        return scores

    return score
