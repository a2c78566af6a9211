"""Names that the owner wants hidden in responses ("As GPT-4, I …"), so that raters stay blind."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

BLOCK = "█████"


def mask_names(text: str, names: Sequence[str]) -> tuple[str, int]:
    """The text with each of these names, as a whole word in any case, hidden; and how many were."""
    if not names:
        return text, 0
    return re.subn(rf"(?<!\w)({'|'.join(map(re.escape, names))})(?!\w)", BLOCK, text, flags=re.IGNORECASE)


def count_masked(items: Iterable[Sequence[Sequence[dict[str, Any]]]], names: Sequence[str]) -> dict[str, int]:
    """In how many `responses`, and in how many `items`, a name is hidden; items are responses are lists of turns."""
    folded = [name.casefold() for name in names]
    responses = affected = 0
    for item in items:
        masked = sum(any(_has_one(turn["content"], names, folded) for turn in turns) for turns in item)
        responses, affected = responses + masked, affected + bool(masked)
    return {"responses": responses, "items": affected}


def _has_one(text: str, names: Sequence[str], folded: Sequence[str]) -> bool:
    plain = text.casefold()  # the pattern is slow, and most texts have no name in them
    return any(name in plain for name in folded) and mask_names(text, names)[1] > 0
