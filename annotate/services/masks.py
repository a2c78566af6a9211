"""Names that the owner wants hidden in responses ("As GPT-4, I …"), so that raters stay blind.

A listed name is found as a whole word in any case, and with it what follows as its version: "GPT-4" is also found as
"gpt 4", "GPT4", "GPT-4o", "GPT-4.1" and "GPT-4o-mini", "Claude" as "Claude-3.5-sonnet", not in "Claudette". Chinese,
Japanese and Thai are written without spaces: a name of their letters is found anywhere, and such letters beside a Latin
name, as in "我是GPT-4模型", are no part of it. What is written to be missed (look-alike letters) is missed.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

BLOCK = "█████"
_LATIN = "0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
_WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_JOINTS = re.compile(r"[-_\s\u2010-\u2015]+")  # hyphens, dashes, spaces: any of them, or none, stands for another
_JOINT = r"[-_\s\u2010-\u2015]?"
_MORE = rf"(?:[-.\u2010\u2011][{_LATIN}]+)*+"


def mask_names(text: str, names: Sequence[str]) -> tuple[str, int]:
    """The text with each of these names hidden, and how many were; in time proportional to the text's length."""
    finder = _finder(tuple(names))
    return finder.subn(BLOCK, text) if finder else (text, 0)


def unmasked(text: str, names: Sequence[str], length: int) -> str:
    """The part of a text that makes the first `length` characters of `mask_names` of it; a name is in it whole."""
    finder, end, shown = _finder(tuple(names)), 0, 0
    for found in finder.finditer(text) if finder else ():
        if shown + found.start() - end >= length:
            break
        shown, end = shown + found.start() - end + len(BLOCK), found.end()
    return text[: end + max(0, length - shown)]


def count_masked(items: Iterable[Sequence[Sequence[dict[str, Any]]]], names: Sequence[str]) -> dict[str, int]:
    """In how many `responses`, and in how many `items`, a name is hidden; items are responses are lists of turns."""
    finder = _finder(tuple(names))
    responses = affected = 0
    if finder is None:
        return {"responses": 0, "items": 0}
    for item in items:
        masked = sum(any(finder.search(turn["content"]) for turn in turns) for turns in item)
        responses, affected = responses + masked, affected + bool(masked)
    return {"responses": responses, "items": affected}


@lru_cache(maxsize=1000)
def _finder(names: tuple[str, ...]) -> re.Pattern[str] | None:
    words = sorted({name.strip() for name in names if _JOINTS.sub("", name)}, key=lambda name: (-len(name), name))
    if not words:
        return None
    # One look at one character says where no name can begin.
    first = "".join(sorted({re.escape(form) for word in words for form in (word[0].lower(), word[0].upper())}))
    return re.compile(f"(?=[{first}])(?:{'|'.join(map(_pattern, words))})", re.IGNORECASE)


def _pattern(name: str) -> str:
    before, after = _letters_beside(name[0]), _letters_beside(name[-1])
    pattern = _JOINT.join(re.escape(part) for part in _JOINTS.split(name))
    if name[-1].isdecimal():  # what follows a number at once, or after a dot or hyphen, is the rest of a version
        end = rf"[{_LATIN}]{{0,8}}{_MORE}"
    elif after:
        end = rf"(?:[-\u2010\u2011]\d[{_LATIN}]*{_MORE}|(?![{after}]))"
    else:
        end = ""
    return (rf"(?<![{before}])" if before else "") + pattern + end


def _letters_beside(letter: str) -> str:
    """Which letters, beside this first or last letter of a name, would make it a part of a longer word."""
    if re.match(f"[{_LATIN}]", letter):
        return _LATIN
    return "" if re.match(f"[{_WITHOUT_SPACES}]", letter) else r"\w"


def restore_names(text: str, original: str, names: Sequence[str]) -> str | None:
    """A text that somebody made out of the masked `original`, with its names back; None where they can't be told.

    They go back in order where none was taken out, or else everywhere where it is one name all over.
    """
    blocks, finder = text.count(BLOCK), _finder(tuple(names))
    hidden = [found.group() for found in finder.finditer(original)] if finder else []
    if not blocks:
        return text
    if not hidden:  # the blocks are the response's own, or the owner has taken names off the list since
        return text if BLOCK in original else None
    if len(set(hidden)) == 1:
        hidden = hidden[:1] * blocks
    if len(hidden) != blocks:
        return None
    parts = text.split(BLOCK)
    return "".join(part + name for part, name in zip(parts, [*hidden, ""], strict=True))
