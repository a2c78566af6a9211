"""Judges: what gives a response a score. Which response of two is better follows from the scores."""

import importlib.util
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from align.data.lengths import check_prompts, context_length
from align.models.load import find_model, load_config, load_reward_model, load_tokenizer
from align.models.scores import conversation_ids, reward_scores
from preferences.errors import BadInput

Conversation = tuple[list[dict[str, str]], str]  # (prompt, response)
Scorer = Callable[[Sequence[Conversation]], list[float]]


def reward_judge(name: str, prompts: Sequence[Any], new_tokens: int, batch_size: int) -> Scorer:
    """A reward run, loaded alone. Raises BadInput when `name` is not a reward model, or when one of the prompts
    with so many new tokens does not fit it.
    """
    import torch

    source = find_model(name)
    tokenizer = load_tokenizer(source)
    context = context_length(load_config(source))
    check_prompts(tokenizer, prompts, new_tokens, context, f"the reward model {name}")
    model = load_reward_model(source)
    if torch.cuda.is_available():
        model.to("cuda")
    model.eval()

    def score(conversations: Sequence[Conversation]) -> list[float]:
        for prompt, text in conversations:
            length = len(conversation_ids(tokenizer, prompt, text))
            if context is not None and length > context:
                raise BadInput(
                    f"{name}: a prompt with its response has {length} tokens, and the reward model's context is"
                    f" {context}; take the row out, or take another reward model ({text[:40]!r})"
                )
        return reward_scores(model, tokenizer, conversations, batch_size)

    return score


def function_judge(name: str) -> Scorer:
    """A Python function of your own, `file.py:function`, from (prompt, response text) to a number.

    It is your code, run as it stands. Raises BadInput when it can't be loaded or gives no number.
    """
    file, _, function_name = name.rpartition(":")
    if not Path(file).is_file():
        raise BadInput(f"{name}: no such file; write it as path/to/file.py:function")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise BadInput(f"{name}: {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise BadInput(f"{name}: {file} could not be run ({type(error).__name__}: {error})") from None
    function = getattr(module, function_name, None)
    if not inspect.isfunction(function):
        raise BadInput(f"{name}: {file} has no function {function_name!r}")

    def score(conversations: Sequence[Conversation]) -> list[float]:
        scores = []
        for prompt, text in conversations:
            value: Any = function(prompt, text)
            if not isinstance(value, (int, float)) or value != value:
                raise BadInput(f"{name}: gave {value!r} for a response, and a judge gives a number")
            scores.append(float(value))
        return scores

    return score
