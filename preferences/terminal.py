"""Texts from outside on a terminal: names of models, tags, paths, what a server says. They may be hostile.

Nothing in them may move the cursor, change colours or the window's title, turn the text after it round, or look like a
line of ours. What a program reads (`--json`) needs none of this: JSON escapes control characters.
"""

import re
from typing import Any

# What can't be seen, and what turns the direction of all text after it
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]+")


def on_one_line(text: str) -> str:
    """The text on one line, line breaks as spaces and other things that can't be seen as U+FFFD."""
    return UNSEEN.sub(
        lambda run: "".join(" " if one.isspace() else "\N{REPLACEMENT CHARACTER}" for one in run[0]), text
    )


def cleaned(value: Any) -> Any:
    """The texts in a JSON value, names of keys too, each on one line."""
    if isinstance(value, dict):
        return {on_one_line(key): cleaned(part) for key, part in value.items()}
    if isinstance(value, list):
        return [cleaned(part) for part in value]
    return on_one_line(value) if isinstance(value, str) else value


def shown(text: str) -> str:
    """The same of each line, for texts that have lines of our own."""
    return "\n".join(map(on_one_line, text.split("\n")))
