"""Rewards whose right value everybody can see, for benchmarks of PPO. Signatures are those of TRL's GRPO."""

import re
from typing import Any

READER = frozenset(["you", "your", "yours", "yourself", "i", "me", "my", "we", "us", "our"])


def speaks_to_the_reader(prompts: list[Any], completions: list[Any], **kwargs: Any) -> list[float]:
    """10 times the share of words that are first or second person: 0.5 at first, near 10 only in babble."""
    return [10 * _share(text, lambda word: word.split("'")[0] in READER) for text in _texts(completions)]


def short_words(prompts: list[Any], completions: list[Any], **kwargs: Any) -> list[float]:
    """10 times the share of words of at most three letters."""
    return [10 * _share(text, lambda word: len(word) <= 3) for text in _texts(completions)]


def _texts(completions: list[Any]) -> list[str]:
    return [completion[-1]["content"] for completion in completions]


def _share(text: str, wanted: Any) -> float:
    words = re.findall(r"[a-z][a-z']*", text.lower().replace("’", "'"))
    return sum(map(wanted, words)) / len(words) if words else 0.0
