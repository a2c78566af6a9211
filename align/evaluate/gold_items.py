"""Items whose right answer is plain, to be mixed among the pairs that people judge: a response to the prompt beside one
that answers another prompt. Raters who miss them don't read. Pure functions."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from align.evaluate.evidence import Prompt

_WORD = re.compile(r"[^\W\d_]{4,}|[぀-ヿ㐀-鿿가-힣]")  # words of four letters or more; signs of scripts without spaces
_QUOTED = 120  # characters


def gold_items(prompts: Sequence[Prompt], responses: Mapping[str, Sequence[str]], wanted: int) -> list[dict[str, Any]]:
    """At most so many import lines with `gold`, of these prompts in this order; as often the first response is right.

    `responses`: {model: a text for each prompt}. The right one shares words with its prompt; the wrong one, by the same
    model to another prompt, shares none with it. A prompt without two such responses gives no item. The lines name no
    models, so that nobody counts them for one.
    """
    asked = _telling([_words(prompt.turns[-1]["content"]) for prompt in prompts])
    found: list[dict[str, Any]] = []
    for number, prompt in enumerate(prompts):
        if len(found) >= wanted:
            break
        models = sorted(responses, key=lambda model: _digest("gold", model, prompt.id))
        for model in models:
            right = responses[model][number]
            wrong = _wrong(number, prompts, asked, responses[model])
            if wrong is None or not right.strip() or not asked[number] & _words(right):
                continue
            found.append(_item(prompt, right, responses[model][wrong], prompts[wrong], first=len(found) % 2 == 0))
            break
    return found


def _wrong(number: int, prompts: Sequence[Prompt], asked: Sequence[frozenset[str]], said: Sequence[str]) -> int | None:
    """Another prompt whose response has nothing to do with this one, and says something about its own."""
    others = sorted(range(len(prompts)), key=lambda other: _digest(prompts[number].id, prompts[other].id))
    for other in others:
        if other == number or asked[other] & asked[number]:
            continue
        words = _words(said[other])
        if words & asked[other] and not words & asked[number] and said[other] != said[number]:
            return other
    return None


def _item(prompt: Prompt, right: str, wrong: str, other: Prompt, *, first: bool) -> dict[str, Any]:
    question = " ".join(other.turns[-1]["content"].split())
    quoted = question if len(question) <= _QUOTED else question[: _QUOTED - 1] + "…"
    return {
        "id": f"{prompt.id}-{_digest('gold', right, wrong)[:8]}",
        "prompt": prompt.turns,
        "responses": [{"text": text} for text in ((right, wrong) if first else (wrong, right))],
        "gold": [1, 2] if first else [2, 1],
        "explanation": f"The other response answers another question: “{quoted}”",
    }


def _telling(asked: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """The words that say what each prompt is about: not those, like "write", that a fifth of the prompts have."""
    counts = Counter(word for words in asked for word in words)
    return [frozenset(word for word in words if counts[word] < max(3, len(asked) / 5)) for words in asked]


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
