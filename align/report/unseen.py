"""Whether the models had seen the prompts: `trained_on` of metrics.json in words. Pure functions."""

from collections.abc import Mapping
from typing import Any


def prompts_words(metrics: Mapping[str, Any]) -> str:
    """The prompts that everybody answered, in the words that are true of them: "240 held-out prompts", say."""
    many, found = metrics.get("prompts") or 0, metrics.get("trained_on") or {}
    words = f"{many:,} prompts" if many != 1 else "1 prompt"
    if most := max((facts["seen"] for facts in found.values()), default=0):
        return f"{words}, of which {most:,} {'is' if most == 1 else 'are'} in data that a model was trained on"
    if not any(facts["runs"] for facts in found.values()):
        return words
    if any(facts["unknown"] for facts in found.values()):
        return f"{words}, none of which was found in the models' training data; some of that could not be looked at"
    held_out = words.replace(" prompt", " held-out prompt")
    return f"{held_out}, none of which is in the data that the runs behind these models were trained on"


def seen_note(model: str, metrics: Mapping[str, Any]) -> str:
    """What must be known at once of a model that was trained on prompts of its evaluation; else nothing."""
    seen, many = ((metrics.get("trained_on") or {}).get(model) or {}).get("seen"), metrics.get("prompts") or 0
    if not seen:
        return ""
    which = "The prompt is" if seen == many == 1 else f"{seen:,} of the {many:,} prompts {'is' if seen == 1 else 'are'}"
    return (
        f"{which} in the data that it was trained on, where an answer may be learnt by heart: decide on other prompts."
    )
